//! The ranks of a job: their values in pieces, several on their way at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cuvee_kernels::{Collective, CollectiveError};
use mpi::environment::processor_name;

use crate::job::Job;
use crate::launch::Launch;
use crate::library::{self, Buffers, Library, Operation, Pending, lock};
use crate::patience::{self, TIMEOUT, Wait};
use crate::peer::{Peer, State};

/// Values of a piece, 4 MiB of them: larger ones are no faster, and of smaller ones more wait for
/// the processor.
const PIECE: usize = 1 << 20;
/// Pieces on their way at a time: the library moves one while another is copied.
const FLYING: usize = 2;
/// How often a rank that waits looks after the others.
const LOOK: Duration = Duration::from_secs(1);
/// When it says that it waits.
const SAY: Duration = Duration::from_secs(10);

pub(crate) struct World {
    library: Library,
    /// In the ranks' order; none until they have told.
    peers: Vec<Peer>,
    limit: Duration,
    turn: Mutex<Turn>,
}

/// What one operation after the other uses.
#[derive(Default)]
struct Turn {
    spare: Vec<Buffers<f32>>,
    /// What was said last while waiting: it is not said twice.
    said: String,
}

/// Finds the other ranks; `None` where there are none.
///
/// # Errors
/// MPI cannot be initialised as it must be, it knows of another number of ranks than the launcher,
/// or the variable with the limit of waiting is wrong.
pub(crate) fn join(launch: &Launch) -> Result<Option<Arc<World>>, CollectiveError> {
    let limit = patience::limit(std::env::var_os(TIMEOUT).as_deref())?;
    let library = Library::start()?;
    let size = library.size();
    if let Some(ranks) = launch.ranks.filter(|ranks| *ranks != size) {
        library.end();
        return Err(CollectiveError {
            message: format!(
                "expected {ranks} ranks ({}), and MPI finds {}: {}",
                launch.variable,
                size,
                library::version()
            ),
            hint: "start it with the launcher of the MPI that it was built with".to_owned(),
        });
    }
    if size == 1 {
        library.end();
        return Ok(None);
    }
    let mut world = World { library, peers: Vec::new(), limit, turn: Mutex::default() };
    let this = Peer::this(processor_name().unwrap_or_default());
    let texts = world.all_gather(this.to_text().as_bytes())?;
    let peers = texts.iter().map(|text| Peer::from_text(&String::from_utf8_lossy(text)));
    world.peers = peers.collect::<Option<_>>().ok_or_else(|| CollectiveError {
        message: "a rank does not tell who it is as this one does".to_owned(),
        hint: "start the same program on every host".to_owned(),
    })?;
    Ok(Some(Arc::new(world)))
}

impl World {
    /// One operation on all values, a piece after the other. The order in which a value is added up
    /// is the library's: Open MPI's immediate operations choose it by the numbers of values and of
    /// ranks alone, and add it up at one rank, so that all have the same bits, each time.
    fn in_pieces(&self, operation: Operation, values: &mut [f32]) -> Result<(), CollectiveError> {
        let turn = &mut *lock(&self.turn);
        let mut pieces = pieces(values.len(), PIECE);
        let mut flying = VecDeque::with_capacity(FLYING);
        loop {
            while flying.len() < FLYING
                && let Some(piece) = pieces.next()
            {
                let mut buffers = turn.spare.pop().unwrap_or_default();
                buffers.from.clear();
                buffers.from.extend_from_slice(&values[piece.clone()]);
                buffers.to.resize(piece.len(), 0.0);
                flying.push_back((piece, self.library.begin(operation, buffers)?));
            }
            let Some((piece, pending)) = flying.pop_front() else { return Ok(()) };
            let buffers = self.wait(pending, Some(self.limit), &mut turn.said)?;
            match operation {
                Operation::Reduce(root) if root != self.rank() => {}
                Operation::AllReduce | Operation::Reduce(_) => {
                    values[piece].copy_from_slice(&buffers.to);
                }
                Operation::Broadcast(_) => values[piece].copy_from_slice(&buffers.from),
            }
            turn.spare.push(buffers);
        }
    }

    /// The buffers of an operation when it is done.
    fn wait<B>(
        &self,
        mut pending: Pending<'_, B>,
        limit: Option<Duration>,
        said: &mut String,
    ) -> Result<B, CollectiveError> {
        let mut wait = Wait::new();
        let (mut look, mut say, mut ended) = (LOOK, SAY, None);
        loop {
            pending = match pending.test()? {
                Ok(buffers) => return Ok(buffers),
                Err(pending) => pending,
            };
            let lasted = wait.pause();
            if lasted < look {
                continue;
            }
            look = lasted + LOOK;
            // What a rank sent before it ended may still arrive until the next look.
            let before = ended;
            ended = self.first(State::Ended);
            if let Some(rank) = ended.filter(|_| ended == before) {
                return Err(CollectiveError {
                    message: format!(
                        "{} has ended, and {} waits for it",
                        self.name(rank),
                        self.me()
                    ),
                    hint: "its own last lines say why; `--resume` goes on from the last checkpoint"
                        .to_owned(),
                });
            }
            let Some(limit) = limit else { continue };
            if lasted >= limit {
                return Err(CollectiveError {
                    message: format!(
                        "{} has waited {} s for {}",
                        self.me(),
                        lasted.as_secs(),
                        self.awaited()
                    ),
                    hint: format!("{TIMEOUT} holds the seconds that a rank waits for another"),
                });
            }
            if lasted >= say {
                say = Duration::MAX;
                self.say(said);
            }
        }
    }

    /// Says for whom this rank waits, once: who knows it, and two of those who do not.
    fn say(&self, said: &mut String) {
        let known = self.size() == 2 || self.first(State::Stopped).is_some();
        let line = format!("{} waits for {}\n", self.me(), self.awaited());
        if (known || self.rank() < 2) && *said != line {
            eprint!("{line}"); // In one write, since others say something too.
            *said = line;
        }
    }

    /// The bytes of every rank, as many of each.
    fn gather(&self, bytes: Vec<u8>, said: &mut String) -> Result<Vec<u8>, CollectiveError> {
        let pending = self.library.gather(bytes)?;
        Ok(self.wait(pending, Some(self.limit), said)?.to)
    }

    /// The first rank that is in a state, as far as can be seen from here.
    fn first(&self, state: State) -> Option<usize> {
        let this = self.peers.get(self.rank())?;
        self.peers.iter().position(|peer| peer.state(this) == state)
    }

    /// For whom this rank waits, as far as it can know.
    fn awaited(&self) -> String {
        if let Some(rank) = self.first(State::Stopped) {
            return format!("{}, which is stopped", self.name(rank));
        }
        match self.size() {
            2 => self.name(1 - self.rank()),
            ranks => format!("one of the {} others", ranks - 1),
        }
    }

    fn name(&self, rank: usize) -> String {
        self.peers.get(rank).map_or_else(|| format!("rank {rank}"), |peer| peer.name(rank))
    }

    fn me(&self) -> String {
        format!("rank {}", self.rank())
    }
}

/// Ranges of at most `most` that follow each other up to `length`.
fn pieces(length: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..length).step_by(most).map(move |start| start..length.min(start + most))
}

impl Collective for World {
    fn rank(&self) -> usize {
        self.library.rank()
    }

    fn size(&self) -> usize {
        self.library.size()
    }

    fn all_reduce(&self, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.in_pieces(Operation::AllReduce, values)
    }

    fn reduce(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.in_pieces(Operation::Reduce(root), values)
    }

    fn broadcast(&self, root: usize, values: &mut [f32]) -> Result<(), CollectiveError> {
        self.in_pieces(Operation::Broadcast(root), values)
    }

    fn all_gather(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, CollectiveError> {
        let said = &mut lock(&self.turn).said;
        let lengths = self.gather((bytes.len() as u64).to_le_bytes().to_vec(), said)?;
        let lengths =
            lengths.as_chunks().0.iter().map(|length| u64::from_le_bytes(*length) as usize);
        let lengths: Vec<usize> = lengths.collect();
        let mut gathered: Vec<Vec<u8>> = lengths.iter().map(|l| Vec::with_capacity(*l)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // As many bytes of every rank as together make a piece.
        for piece in pieces(longest, (PIECE * size_of::<f32>() / self.size()).max(1)) {
            let mut own = bytes.get(piece.start..).unwrap_or_default().to_vec();
            own.resize(piece.len(), 0);
            let every = self.gather(own, said)?;
            for ((whole, length), part) in
                gathered.iter_mut().zip(&lengths).zip(every.chunks(piece.len()))
            {
                let left = length - whole.len();
                whole.extend_from_slice(&part[..left.min(part.len())]);
            }
        }
        Ok(gathered)
    }

    fn barrier(&self) -> Result<(), CollectiveError> {
        let pending = self.library.barrier()?;
        self.wait(pending, None, &mut lock(&self.turn).said)
    }
}

impl Job for World {
    fn peers(&self) -> &[Peer] {
        &self.peers
    }

    fn finish(&self) -> Result<(), CollectiveError> {
        self.barrier()?;
        self.library.end();
        Ok(())
    }

    fn abort(&self, code: i32) -> ! {
        self.library.abort(code)
    }
}
