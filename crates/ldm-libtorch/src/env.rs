//! The environment variables of a rank, as set by torchrun and `ldm train --nproc`.

use std::ffi::CString;
use std::fmt::Display;
use std::str::FromStr;

use crate::process_group::GroupError;

/// `RANK`, `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR` and `MASTER_PORT`, which torchrun sets for each process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RankEnv {
    /// Rank over all machines.
    pub rank: usize,
    /// Number of ranks.
    pub world: usize,
    /// Rank on this machine, which selects the GPU.
    pub local_rank: usize,
    /// Host of rank 0.
    pub host: CString,
    /// Port of rank 0.
    pub port: u16,
    /// The launcher serves the rendezvous store itself (as torchrun does), so rank 0 connects as a client.
    pub launcher_serves: bool,
    /// A listening socket for rank 0's rendezvous store, inherited from the launcher; without one the store listens on
    /// all interfaces, for ranks of other machines.
    pub listen_fd: Option<i32>,
}

impl RankEnv {
    /// The variable of [`RankEnv::listen_fd`].
    pub const LISTEN_FD: &str = "LDM_LISTEN_FD";

    /// Reads the environment; `None` without `RANK` and `WORLD_SIZE`.
    ///
    /// # Errors
    /// [`GroupError`] naming the variable that is missing or wrong.
    pub fn read() -> Result<Option<Self>, GroupError> {
        Self::from(|name| std::env::var(name).ok())
    }

    /// [`RankEnv::read`] from any list of variables.
    ///
    /// # Errors
    /// As [`RankEnv::read`].
    pub fn from(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, GroupError> {
        if variable("RANK").is_none() && variable("WORLD_SIZE").is_none() {
            return Ok(None);
        }
        let text = |name: &str| {
            variable(name).ok_or_else(|| {
                GroupError(format!(
                    "{name}: expected a value, since a rank needs RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT, got \
                     none; try --nproc or torchrun"
                ))
            })
        };
        let rank: usize = number("RANK", &text("RANK")?, "a number from 0")?;
        let world: usize = number("WORLD_SIZE", &text("WORLD_SIZE")?, "a number from 1")?;
        if rank >= world {
            return Err(GroupError(format!(
                "RANK: expected less than WORLD_SIZE, which is {world}, got {rank}"
            )));
        }
        let local_rank = variable("LOCAL_RANK")
            .map(|local| number("LOCAL_RANK", &local, "a number from 0"))
            .transpose()?
            .unwrap_or(rank);
        if local_rank > rank {
            return Err(GroupError(format!(
                "LOCAL_RANK: expected at most RANK, which is {rank}, got {local_rank}"
            )));
        }
        let host = text("MASTER_ADDR")?;
        let host = CString::new(host.as_str())
            .ok()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| GroupError(format!("MASTER_ADDR: expected a host's name, got {host:?}")))?;
        let port: u16 = number("MASTER_PORT", &text("MASTER_PORT")?, "a port from 1 to 65535")?;
        if port == 0 {
            return Err(GroupError("MASTER_PORT: expected a port from 1 to 65535, got 0".into()));
        }
        let launcher_serves = variable("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True");
        let listen_fd = variable(Self::LISTEN_FD)
            .map(|fd| number(Self::LISTEN_FD, &fd, "an open file's number"))
            .transpose()?
            .filter(|_| rank == 0);
        Ok(Some(Self { rank, world, local_rank, host, port, launcher_serves, listen_fd }))
    }
}

fn number<T: FromStr + Display>(name: &str, text: &str, expected: &str) -> Result<T, GroupError> {
    text.parse().map_err(|_| GroupError(format!("{name}: expected {expected}, got {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [(&str, &str); 5] = [
        ("RANK", "3"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "1"),
        ("MASTER_ADDR", "10.0.0.1"),
        ("MASTER_PORT", "29500"),
    ];

    fn read(changes: &[(&str, Option<&str>)]) -> Result<Option<RankEnv>, GroupError> {
        RankEnv::from(|name| {
            let changed = changes.iter().find(|(changed, _)| *changed == name);
            let good = GOOD.iter().find(|(good, _)| *good == name).map(|(_, value)| *value);
            changed.map_or(good, |(_, value)| *value).map(str::to_owned)
        })
    }

    #[test]
    fn torchruns_variables_are_read() {
        let env = read(&[]).unwrap().unwrap();
        assert_eq!((env.rank, env.world, env.local_rank, env.port), (3, 4, 1, 29500));
        assert_eq!(env.host.to_str().unwrap(), "10.0.0.1");
        assert!(!env.launcher_serves);
        assert!(read(&[("TORCHELASTIC_USE_AGENT_STORE", Some("True"))]).unwrap().unwrap().launcher_serves);
        assert_eq!(env.listen_fd, None);
        assert_eq!(
            read(&[("LDM_LISTEN_FD", Some("5"))]).unwrap().unwrap().listen_fd,
            None,
            "of rank 0 alone"
        );
        let first = read(&[("RANK", Some("0")), ("LOCAL_RANK", None), ("LDM_LISTEN_FD", Some("5"))]);
        assert_eq!(first.unwrap().unwrap().listen_fd, Some(5));
        assert_eq!(read(&[("LOCAL_RANK", None)]).unwrap().unwrap().local_rank, 3);
        assert_eq!(read(&[("RANK", None), ("WORLD_SIZE", None)]).unwrap(), None);
    }

    #[test]
    fn each_invalid_variable_is_named() {
        #[track_caller]
        fn check(name: &str, value: Option<&str>, expected: &str) {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.starts_with(name) && error.contains(expected), "{error}");
        }
        check("RANK", None, "try --nproc or torchrun");
        check("WORLD_SIZE", None, "expected a value");
        check("MASTER_ADDR", None, "expected a value");
        check("MASTER_PORT", None, "expected a value");
        check("RANK", Some("4"), "expected less than WORLD_SIZE, which is 4, got 4");
        check("RANK", Some("-1"), "expected a number from 0, got \"-1\"");
        check("WORLD_SIZE", Some("two"), "got \"two\"");
        check("LOCAL_RANK", Some("x"), "expected a number");
        check("LOCAL_RANK", Some("9"), "expected at most RANK, which is 3");
        check("MASTER_ADDR", Some(""), "expected a host's name");
        check("MASTER_PORT", Some("65536"), "expected a port");
        check("MASTER_PORT", Some("0"), "expected a port");
    }
}
