//! Names of the Linux signals (x86-64 and every other architecture but MIPS, SPARC, Alpha and PA-RISC).

/// Index = number - 1.
static NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// The number of a standard signal, by its full name.
pub fn number(name: &str) -> Option<i32> {
    NAMES.iter().position(|known| *known == name).map(|index| index as i32 + 1)
}

/// The name of a signal; real-time signals are `SIGRTMIN+n` with the kernel's first one, 32, as base.
pub fn name(number: i32) -> String {
    let index = usize::try_from(number - 1).ok();
    match index.and_then(|index| NAMES.get(index)) {
        Some(name) => (*name).to_owned(),
        None => format!("SIGRTMIN+{}", number.saturating_sub(32)),
    }
}

#[cfg(test)]
mod tests {
    use super::{name, number};

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(number("SIGKILL"), Some(9));
        assert_eq!(number("SIGTERM"), Some(15));
        assert_eq!(number("SIGSYS"), Some(31));
        for signal in 1..32 {
            assert_eq!(number(&name(signal)), Some(signal));
        }
    }

    #[test]
    fn unknown_names_are_refused() {
        for bad in ["", "TERM", "SIGFOO", "sigterm", "9"] {
            assert_eq!(number(bad), None);
        }
        assert_eq!(name(34), "SIGRTMIN+2");
    }
}
