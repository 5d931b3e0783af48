//! Signals of the system.

/// Returns true if this process ignores `signal`, as SIGHUP under `nohup`; on Linux by `/proc`, elsewhere never.
pub fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask & (1 << (signal - 1)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_known() {
        let [pipe, terminate] = [13, 15];
        assert!(!is_ignored(terminate));
        // Rust ignores SIGPIPE before `main`, and so does its test harness.
        assert!(!cfg!(target_os = "linux") || is_ignored(pipe));
    }
}
