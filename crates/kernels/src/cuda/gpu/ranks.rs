//! What the GPUs of several ranks do together, in a stream beside each one's own.
//!
//! The ranks' [`Collective`] brings them together at the first call, and from then on they speak
//! through NCCL. Its stream begins with something when the GPU's own has come to it; the GPU's own
//! goes on meanwhile, until [`Stream::join`].
//!
//! **A rank that is gone** is waited for by the others' GPUs. What NCCL notices of it, over a
//! network, ends this rank too: [`Ranks::wait`]. Of a process of the same host it notices nothing;
//! the launcher does, and ends all.

use std::ffi::c_char;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cudarc::driver::result;

use super::error::{DEFECT, Doing};
use super::info::GpuInfo;
use super::memory::Memory;
use super::nccl::{Communicator, ID, Id, Nccl, Together};
use super::owned::locked;
use super::stream::{Event, Stream};
use crate::collective::{Collective, CollectiveError};
use crate::device::DeviceError;

/// How long a rank that ends waits for what it has begun with the others, and then for them to end
/// as well. Longer than any sum takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A GPU's part in what the ranks do together: none until the first call.
pub(super) struct Ranks {
    gpu: GpuInfo,
    group: Mutex<Option<Group>>,
}

struct Group {
    communicator: Communicator,
    /// When the GPU's own stream came to what was done together last.
    ready: Event,
    /// When that was done.
    done: Arc<Event>,
    stream: Stream,
}

impl Ranks {
    pub(super) fn new(gpu: GpuInfo) -> Self {
        Self { gpu, group: Mutex::new(None) }
    }

    /// Does it with `count` f32 numbers from byte `at` of `memory` on, after everything before in
    /// the GPU's `own` stream, which the memory is of.
    pub(super) fn run(
        &self,
        own: &Stream,
        together: Together,
        memory: &Memory,
        at: usize,
        count: usize,
        ranks: &dyn Collective,
    ) -> Result<(), DeviceError> {
        const WHAT: &str = "beginning a sum over the ranks";
        let address = memory.address(at..at + size_of::<f32>() * count);
        let mut held = locked(&self.group);
        let group = match &mut *held {
            Some(group) => group,
            none => none.insert(Group::open(&self.gpu, ranks)?),
        };
        group.ready.record(own).doing(WHAT)?;
        group.stream.after(&group.ready).doing(WHAT)?;
        // SAFETY: the numbers lie in the memory, and it is given back in the order of its stream,
        // which first waits for `done`.
        unsafe { group.communicator.run(together, address, count, &group.stream) }?;
        group.done.record(&group.stream).doing(WHAT)?;
        own.lend(&group.done);
        Ok(())
    }

    /// Waits for everything in the GPU's `own` stream, as long as no rank is known to be gone: what
    /// the stream does with it is never done.
    pub(super) fn wait(&self, own: &Stream) -> Result<(), DeviceError> {
        loop {
            match &*locked(&self.group) {
                Some(group) => group.communicator.status()?,
                None => return Ok(()),
            }
            if own.idle().doing("waiting for the GPU")? {
                return Ok(());
            }
            thread::yield_now();
        }
    }

    /// Ends this rank's part, if there was one.
    pub(super) fn leave(&self) {
        if let Some(group) = locked(&self.group).take() {
            group.leave();
        }
    }
}

impl Group {
    /// Brings the ranks together, which all call this.
    fn open(gpu: &GpuInfo, ranks: &dyn Collective) -> Result<Self, DeviceError> {
        let id = meet(ranks, Card::of(gpu, ranks.rank()))?;
        let event = || Event::new(false).doing("making an event");
        let (ready, done, stream) = (event()?, Arc::new(event()?), Stream::open(gpu.device)?);
        let communicator = Communicator::open(Nccl::load()?, id, ranks.rank(), ranks.size())?;
        Ok(Self { communicator, ready, done, stream })
    }

    /// Ends what this rank has begun with the others, or gives it up.
    fn leave(self) {
        let begun = Instant::now();
        let done = loop {
            match (self.stream.idle(), self.communicator.status()) {
                (Ok(false), Ok(())) if begun.elapsed() < PATIENCE => {
                    thread::sleep(Duration::from_millis(1));
                }
                (idle, status) => break matches!(idle, Ok(true)) && status.is_ok(),
            }
        };
        self.communicator.end(done, PATIENCE);
    }
}

/// What a rank says of itself before the GPUs are connected.
struct Card {
    /// Its GPU, as no other is called.
    gpu: String,
    /// The version of its NCCL.
    nccl: String,
    /// What the ranks find each other by; rank 0 alone makes it.
    id: Option<Id>,
}

impl Card {
    fn of(gpu: &GpuInfo, rank: usize) -> Result<Self, DeviceError> {
        let nccl = Nccl::load()?;
        let uuid = result::device::get_uuid(gpu.device).doing("asking the GPU for its number")?;
        let id = if rank == 0 { Some(nccl.make_id()?) } else { None };
        let gpu = format!("{} (GPU-{})", gpu.name, dashed(uuid.bytes));
        Ok(Self { gpu, nccl: nccl.version()?, id })
    }
}

/// A GPU's number as `nvidia-smi -L` writes it.
fn dashed(bytes: [c_char; 16]) -> String {
    let hex: String = bytes.iter().map(|&byte| format!("{:02x}", byte as u8)).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// The id of rank 0, once it is known that every rank can take part, with a GPU of its own. Where
/// one cannot, all of them end with the same words.
fn meet(ranks: &dyn Collective, own: Result<Card, DeviceError>) -> Result<Id, DeviceError> {
    let gather = |bytes: &[u8]| {
        let gathered = ranks.all_gather(bytes);
        gathered.map_err(|CollectiveError { message, hint }| DeviceError { message, hint })
    };
    let trouble = own.as_ref().err().map_or_else(String::new, ToString::to_string);
    let troubles = gather(trouble.as_bytes())?;
    if let Some(rank) = troubles.iter().position(|trouble| !trouble.is_empty()) {
        let trouble = String::from_utf8_lossy(&troubles[rank]);
        let (message, hint) = trouble.rsplit_once("\nhint: ").unwrap_or((&*trouble, ""));
        let message = format!("rank {rank} cannot take part: {message}");
        return Err(DeviceError { message, hint: hint.to_owned() });
    }
    let own = own?;
    let versions = gather(own.nccl.as_bytes())?;
    if let Some(rank) = versions.iter().position(|version| *version != versions[0]) {
        let [first, other] = [0, rank].map(|rank| String::from_utf8_lossy(&versions[rank]));
        return Err(DeviceError {
            message: format!(
                "expected one NCCL, found {first} at rank 0 and {other} at rank {rank}"
            ),
            hint: "LD_LIBRARY_PATH must name the same one on every host".to_owned(),
        });
    }
    let gpus = gather(own.gpu.as_bytes())?;
    for (rank, gpu) in gpus.iter().enumerate() {
        if let Some(first) = gpus[..rank].iter().position(|other| other == gpu) {
            return Err(DeviceError {
                message: format!(
                    "expected a GPU for each rank, found ranks {first} and {rank} at the same one, {}",
                    String::from_utf8_lossy(gpu)
                ),
                hint: "--device cuda gives each rank of a host the next GPU, and --device cuda:N the same one to all; start no more ranks on a host than it has GPUs"
                    .to_owned(),
            });
        }
    }
    let ids = gather(own.id.as_ref().map_or(&[][..], |id| &id.0[..]))?;
    let id = ids.into_iter().next().and_then(|bytes| <[u8; ID]>::try_from(bytes).ok());
    id.map(Id).ok_or_else(|| DeviceError {
        message: "expected rank 0 to send NCCL's id, found other bytes".to_owned(),
        hint: DEFECT.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Barrier;

    use super::*;
    use crate::collective::Alone;

    /// A rank in a thread: all of them leave what they say at their places.
    struct Thread<'a> {
        rank: usize,
        places: &'a [Mutex<Vec<u8>>],
        barrier: &'a Barrier,
    }

    impl Collective for Thread<'_> {
        fn rank(&self) -> usize {
            self.rank
        }

        fn size(&self) -> usize {
            self.places.len()
        }

        fn all_reduce(&self, _: &mut [f32]) -> Result<(), CollectiveError> {
            unreachable!("the GPUs sum")
        }

        fn reduce(&self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
            unreachable!("the GPUs sum")
        }

        fn broadcast(&self, _: usize, _: &mut [f32]) -> Result<(), CollectiveError> {
            unreachable!("the GPUs broadcast")
        }

        fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
            *locked(&self.places[self.rank]) = bytes.to_vec();
            self.barrier.wait();
            let all = self.places.iter().map(|place| locked(place).clone()).collect();
            self.barrier.wait();
            Ok(all)
        }

        fn barrier(&self) -> Result<(), CollectiveError> {
            self.barrier.wait();
            Ok(())
        }
    }

    /// What ranks with these cards find, each.
    fn met<const N: usize>(cards: [Result<Card, DeviceError>; N]) -> [Result<Id, DeviceError>; N] {
        let places = [(); N].map(|()| Mutex::new(Vec::new()));
        let barrier = Barrier::new(N);
        let (places, barrier) = (&places[..], &barrier);
        thread::scope(|scope| {
            let mut ranks = 0..;
            cards
                .map(|card| {
                    let rank = ranks.next().unwrap();
                    scope.spawn(move || meet(&Thread { rank, places, barrier }, card))
                })
                .map(|thread| thread.join().unwrap())
        })
    }

    fn card(gpu: &str, nccl: &str, id: Option<u8>) -> Result<Card, DeviceError> {
        Ok(Card { gpu: gpu.into(), nccl: nccl.into(), id: id.map(|byte| Id([byte; ID])) })
    }

    #[test]
    fn every_rank_gets_the_id_of_rank_0() {
        let cards = [("a", Some(7)), ("b", None), ("c", None)];
        let ids = met(cards.map(|(gpu, id)| card(gpu, "2.32.3", id)));
        assert_eq!(ids, [Ok(Id([7; ID])), Ok(Id([7; ID])), Ok(Id([7; ID]))]);
        assert_eq!(meet(&Alone, card("a", "2.32.3", Some(9))), Ok(Id([9; ID])), "a rank alone");
        let said = meet(&Alone, card("a", "2.32.3", None)).unwrap_err().to_string();
        assert!(said.contains("expected rank 0 to send NCCL's id"), "{said}");
    }

    #[test]
    fn two_ranks_at_one_gpu_are_refused_at_every_rank_by_its_name() {
        let cards = [("H200 (GPU-a)", Some(7)), ("H200 (GPU-b)", None), ("H200 (GPU-a)", None)];
        for found in met(cards.map(|(gpu, id)| card(gpu, "2.32.3", id))) {
            let said = found.unwrap_err().to_string();
            assert!(said.contains("ranks 0 and 2 at the same one, H200 (GPU-a)\nhint: "), "{said}");
            assert!(said.contains("--device cuda gives each rank"), "{said}");
        }
    }

    #[test]
    fn two_versions_of_nccl_are_refused_at_every_rank() {
        for found in met([card("a", "2.32.3", Some(7)), card("b", "2.27.5", None)]) {
            let said = found.unwrap_err().to_string();
            assert!(said.contains("found 2.32.3 at rank 0 and 2.27.5 at rank 1"), "{said}");
        }
    }

    #[test]
    fn a_rank_that_cannot_take_part_is_named_at_every_rank() {
        let missing = DeviceError { message: "no libnccl".into(), hint: "install it".into() };
        for found in met([card("a", "2.32.3", Some(7)), Err(missing)]) {
            let said = found.unwrap_err().to_string();
            assert_eq!(said, "rank 1 cannot take part: no libnccl\nhint: install it");
        }
    }

    #[test]
    fn a_gpu_is_called_as_nvidia_smi_calls_it() {
        let bytes: [u8; 16] = *b"\xfe\x01\x23\x45\x67\x89\xab\xcd\xef\x00\x11\x22\x33\x44\x55\x66";
        let written = "fe012345-6789-abcd-ef00-112233445566";
        assert_eq!(dashed(bytes.map(|byte| byte as c_char)), written);
    }
}
