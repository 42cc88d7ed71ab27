//! Work that takes minutes tells whoever watches that it goes on.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Does `work`, and tells when it begins, after every `period`, and how long it took.
pub fn told<T>(what: &str, period: Duration, tell: &(impl Fn(&str) + Sync), work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    tell(&format!("{what} ..."));
    let done = thread::scope(|scope| {
        let (end, ended) = channel::<()>();
        scope.spawn(move || {
            while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                tell(&format!("{what} ... since {:.0?}", start.elapsed()));
            }
        });
        let done = work();
        drop(end);
        done
    });
    tell(&format!("{what} ... took {:.0?}", start.elapsed()));
    done
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn mend_34_long_work_is_not_silent() {
        let lines = Mutex::new(Vec::new());
        let (twice, heard) = channel();
        let tell = |line: &str| {
            let mut lines = lines.lock().unwrap();
            lines.push(line.to_owned());
            if lines.len() == 3 {
                twice.send(()).unwrap();
            }
        };
        let done =
            told("build x", Duration::from_millis(1), &tell, || heard.recv_timeout(Duration::from_secs(60)).is_ok());
        assert!(done, "it went on without a word");
        let lines = lines.into_inner().unwrap();
        assert_eq!(lines[0], "build x ...");
        assert!(lines[1].starts_with("build x ... since "), "{lines:?}");
        assert!(lines.last().unwrap().starts_with("build x ... took "), "{lines:?}");
    }
}
