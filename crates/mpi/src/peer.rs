//! Who the ranks are, and what the system tells of those on this host.

use std::fs;

/// A rank's process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// What the library calls the host.
    pub host: String,
    /// The running kernel's own number, which no two machines share, or the host's name.
    pub machine: String,
    /// The cores it may use.
    pub cores: String,
    process: u32,
    /// When the process began, in ticks of the kernel: a number may be given away again.
    began: u64,
    /// Whose numbers of processes these are; empty where processes cannot be looked up.
    namespace: String,
}

/// What becomes of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Runs,
    Stopped,
    Ended,
}

impl Peer {
    /// This process.
    pub fn this(host: String) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let process = std::process::id();
        let looked_up = status(&read("/proc/self/stat"));
        let namespace = fs::read_link("/proc/self/ns/pid").ok().filter(|_| looked_up.is_some());
        let machine = read("/proc/sys/kernel/random/boot_id").trim().to_owned();
        Self {
            machine: if machine.is_empty() { host.clone() } else { machine },
            cores: read("/proc/self/status")
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))
                .map(|list| list.trim().to_owned())
                .unwrap_or_default(),
            host,
            process,
            began: looked_up.map_or(0, |(_, began)| began),
            namespace: namespace.map(|path| path.display().to_string()).unwrap_or_default(),
        }
    }

    /// As the other ranks are told.
    pub fn to_text(&self) -> String {
        let Self { host, machine, cores, process, began, namespace } = self;
        format!("{host}\n{machine}\n{cores}\n{process}\n{began}\n{namespace}")
    }

    /// From what another rank told.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let mut next = || lines.next();
        Some(Self {
            host: next()?.to_owned(),
            machine: next()?.to_owned(),
            cores: next()?.to_owned(),
            process: next()?.parse().ok()?,
            began: next()?.parse().ok()?,
            namespace: next()?.to_owned(),
        })
    }

    /// What becomes of it, seen from the process `by`: one elsewhere runs as far as that can tell.
    pub fn state(&self, by: &Self) -> State {
        if self.machine != by.machine || self.namespace != by.namespace || by.namespace.is_empty() {
            return State::Runs;
        }
        let path = format!("/proc/{}/stat", self.process);
        match fs::read_to_string(path).ok().as_deref().and_then(status) {
            Some(('T' | 't', began)) if began == self.began => State::Stopped,
            Some((letter, began)) if began == self.began && !matches!(letter, 'Z' | 'X' | 'x') => {
                State::Runs
            }
            _ => State::Ended,
        }
    }

    /// Its name in a message.
    pub fn name(&self, rank: usize) -> String {
        format!("rank {rank} (pid {} on {})", self.process, self.host)
    }
}

/// The state and the beginning of a process, from its `stat` file. The second field is the
/// program's name in brackets, which may hold anything.
fn status(stat: &str) -> Option<(char, u64)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::process::{Child, Command, Stdio};

    fn kill(child: &Child, signal: &str) {
        let process = child.id().to_string();
        assert!(Command::new("kill").args([signal, &process]).status().unwrap().success());
    }

    /// A process that the shell, which ends with its input, stands for.
    fn shell() -> (Child, Peer) {
        let child = Command::new("sh").stdin(Stdio::piped()).spawn().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let began = status(&stat).unwrap().1;
        let peer = Peer { process: child.id(), began, ..Peer::this("here".to_owned()) };
        (child, peer)
    }

    /// Signals are delivered when the kernel comes to it.
    fn becomes(peer: &Peer, state: State) {
        while peer.state(peer) != state {
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_process_of_this_host_is_seen_to_run_to_stop_to_go_on_and_to_end() {
        let (mut child, peer) = shell();
        assert_eq!(peer.state(&peer), State::Runs);
        kill(&child, "-STOP");
        becomes(&peer, State::Stopped);
        kill(&child, "-CONT");
        becomes(&peer, State::Runs);
        kill(&child, "-KILL");
        becomes(&peer, State::Ended); // Not yet waited for by its parent.
        child.wait().unwrap();
        assert_eq!(peer.state(&peer), State::Ended);
    }

    #[test]
    fn another_process_with_the_same_number_is_not_taken_for_the_rank() {
        let this = Peer::this("here".to_owned());
        assert_eq!(this.state(&this), State::Runs);
        let earlier = Peer { began: this.began - 1, ..this.clone() };
        assert_eq!(earlier.state(&this), State::Ended);
    }

    #[test]
    fn a_process_elsewhere_runs_as_far_as_can_be_told() {
        let this = Peer::this("here".to_owned());
        let gone = Peer { began: 0, ..this.clone() };
        for peer in [
            Peer { machine: "another".to_owned(), ..gone.clone() },
            Peer { namespace: "pid:[1]".to_owned(), ..gone.clone() },
        ] {
            assert_eq!(peer.state(&this), State::Runs);
        }
        let blind = Peer { namespace: String::new(), ..gone };
        assert_eq!(blind.state(&blind), State::Runs);
    }

    #[test]
    fn a_process_is_told_whole() {
        let this = Peer::this("here".to_owned());
        assert_eq!(Peer::from_text(&this.to_text()), Some(this));
        assert_eq!(Peer::from_text("here\nmachine"), None);
    }

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_state() {
        let fields = (4..=21).map(|field| field.to_string()).collect::<Vec<_>>().join(" ");
        let stat = format!("7 (a) Z (b c) S {fields} 99 0 0\n");
        assert_eq!(status(&stat), Some(('S', 99)));
        assert_eq!(status("7 (a"), None);
    }
}
