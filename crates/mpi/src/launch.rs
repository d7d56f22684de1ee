//! Whether a launcher of MPI started this process among others: its environment says so.

use std::ffi::OsString;
use std::fmt;

/// The ranks that a launcher of MPI started this process among.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// The environment variable that tells.
    pub variable: &'static str,
    /// The number of this rank.
    pub rank: usize,
    /// How many there are; `None` where the launcher tells only MPI.
    pub ranks: Option<usize>,
}

/// The variables with a rank's number, and those with how many there are.
const LAUNCHERS: [(&str, &str); 3] = [
    // `mpirun` of Open MPI.
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    // `mpiexec` of MPICH, Intel MPI and MVAPICH; `srun --mpi=pmi2`.
    ("PMI_RANK", "PMI_SIZE"),
    // `srun --mpi=pmix`, and others that speak PMIx, which do not tell how many there are.
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),
];

/// The ranks that this process was started among; `None` where it stands alone, which it also does
/// as the only rank of a launcher.
pub fn launched() -> Option<Launch> {
    launched_by(|name| std::env::var_os(name))
}

fn launched_by(variable: impl Fn(&str) -> Option<OsString>) -> Option<Launch> {
    let number = |name| variable(name)?.to_str()?.trim().parse().ok();
    LAUNCHERS
        .into_iter()
        .find_map(|(rank, ranks)| {
            Some(Launch { variable: rank, rank: number(rank)?, ranks: number(ranks) })
        })
        .filter(|launch| launch.ranks != Some(1))
}

impl fmt::Display for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.rank)?;
        if let Some(ranks) = self.ranks {
            write!(f, " of {ranks}")?;
        }
        write!(f, " ({})", self.variable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Option<Launch> {
        launched_by(|name| {
            variables.iter().find(|(set, _)| *set == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn a_process_without_a_launcher_stands_alone() {
        assert_eq!(launch(&[]), None);
        // Slurm without MPI, or an allocation's own shell: processes of their own.
        assert_eq!(launch(&[("SLURM_PROCID", "1"), ("SLURM_STEP_NUM_TASKS", "4")]), None);
        assert_eq!(launch(&[("PMI_RANK", "")]), None);
    }

    #[test]
    fn every_launcher_is_recognised_with_the_number_of_ranks_it_tells() {
        for (variables, said) in [
            (&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")][..], "rank 1 of 2"),
            (&[("PMI_RANK", "3"), ("PMI_SIZE", "64")], "rank 3 of 64"),
            (&[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "4")], "rank 0 of 4"),
            (&[("PMIX_RANK", "5")], "rank 5"),
        ] {
            let found = launch(variables).map(|launch| launch.to_string());
            assert_eq!(found, Some(format!("{said} ({})", variables[0].0)));
        }
        // Open MPI's own variables come before those of PMIx, which it sets too.
        let both =
            [("PMIX_RANK", "1"), ("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        assert_eq!(launch(&both).and_then(|launch| launch.ranks), Some(2));
    }

    #[test]
    fn the_only_rank_of_a_launcher_stands_alone() {
        assert_eq!(launch(&[("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "1")]), None);
        assert_eq!(launch(&[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "1")]), None);
    }
}
