//! The progress bar.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use leasemgr::lfc::{LfcError, Monitor, Outcome};

/// Number of times per second that the bar is drawn.
const HZ: u8 = 10;

/// Makes a bar on standard error, which is hidden if it is not wanted or standard error is not a
/// terminal.
pub(crate) fn bar(wanted: bool) -> ProgressBar {
    if !wanted || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("[{wide_bar}] {bytes}/{total_bytes} {binary_bytes_per_sec} ETA {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ");
    ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr_with_hz(HZ)).with_style(style)
}

/// Runs the work while the bar shows its progress.
pub(crate) fn show(
    bar: &ProgressBar,
    monitor: &Monitor,
    work: impl FnOnce() -> Result<Outcome, LfcError>,
) -> Result<Outcome, LfcError> {
    if bar.is_hidden() {
        return work();
    }
    let (working, ended) = channel::<()>();
    let tick = Duration::from_secs(1) / u32::from(HZ);
    let result = thread::scope(|scope| {
        let follow = move || {
            while ended.recv_timeout(tick) == Err(RecvTimeoutError::Timeout) {
                update(bar, monitor);
            }
        };
        // If no thread can be started, the bar is not updated during the work.
        let _ = thread::Builder::new().spawn_scoped(scope, follow);
        let result = work();
        drop(working);
        result
    });
    update(bar, monitor);
    match &result {
        _ if monitor.progress() == (0, 0) => bar.finish_and_clear(),
        Ok(_) => bar.finish(),
        Err(_) => bar.abandon(),
    }
    result
}

fn update(bar: &ProgressBar, monitor: &Monitor) {
    let (done, total) = monitor.progress();
    bar.set_length(total);
    // Bytes that are read twice are counted twice.
    bar.set_position(done.min(total));
}
