//! Logging to the console or to syslog, in the form of Kea's logs.

use std::fmt::{Debug, Display};
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use chrono::Local;
use indicatif::ProgressBar;
use syslog::{Facility, LogFormat, Logger, LoggerBackend, Severity};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

/// Logs everything to standard error, above the progress bar.
pub(crate) fn to_console(bar: ProgressBar) {
    install(Log::Console(bar), LevelFilter::TRACE);
}

/// Logs to the syslog daemon if there is one.
pub(crate) fn to_syslog() {
    install(Log::Syslog(Mutex::new(None)), LevelFilter::INFO);
}

fn install(log: Log, level: LevelFilter) {
    let subscriber = tracing_subscriber::registry().with(log).with(level);
    // Fails only if a logger is already set.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// The destination of the log.
enum Log {
    Console(ProgressBar),
    Syslog(Mutex<Option<Logger<LoggerBackend, SyslogFormat>>>),
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { id, message } = &fields;
        // Errors with these ids end the cleanup.
        let (level, severity) = match *event.metadata().level() {
            Level::ERROR if id.starts_with("LFC_FAIL_") => ("FATAL", Severity::LOG_CRIT),
            Level::ERROR => ("ERROR", Severity::LOG_ERR),
            Level::WARN => ("WARN", Severity::LOG_WARNING),
            Level::INFO => ("INFO", Severity::LOG_INFO),
            Level::DEBUG | Level::TRACE => ("DEBUG", Severity::LOG_DEBUG),
        };
        let pid = std::process::id();
        let line = format!("{level:<5} [kea-lfc.lfc/{pid}] {id} {}", printable(message));
        match self {
            Self::Console(bar) => {
                let line = format!("{} {line}\n", Local::now().format("%Y-%m-%d %H:%M:%S%.3f"));
                // A cleanup does not depend on its log.
                let _ = bar.suspend(|| io::stderr().write_all(line.as_bytes()));
            }
            Self::Syslog(logger) => {
                let mut logger = logger.lock().unwrap_or_else(PoisonError::into_inner);
                send(&mut logger, severity, &line);
            }
        }
    }
}

/// The fields of an event that are logged.
#[derive(Default)]
struct Fields {
    id: String,
    message: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "id" {
            value.clone_into(&mut self.id);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

/// Sends a line to the syslog daemon. Reconnects if the daemon was restarted.
fn send(logger: &mut Option<Logger<LoggerBackend, SyslogFormat>>, severity: Severity, line: &str) {
    let is_sent = |logger: &mut Logger<LoggerBackend, SyslogFormat>| {
        logger.formatter.format(&mut logger.backend, severity, line).is_ok()
    };
    if !logger.as_mut().is_some_and(is_sent) {
        *logger = syslog::unix(SyslogFormat).ok();
        logger.as_mut().map(is_sent);
    }
}

/// The form of a message on the socket. The formats of the crate have the time in UTC, which
/// daemons take for local time.
#[derive(Clone, Copy)]
struct SyslogFormat;

impl<T: Display> LogFormat<T> for SyslogFormat {
    fn format<W: Write>(&self, to: &mut W, severity: Severity, message: T) -> syslog::Result<()> {
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        let time = Local::now().format("%b %e %T");
        let pid = std::process::id();
        write!(to, "<{priority}>{time} kea-lfc[{pid}]: {message}").map_err(syslog::Error::Write)
    }
}

/// Escapes control characters in a text: names of files may contain any characters, including
/// control sequences of a terminal.
pub(crate) fn printable(text: impl Display) -> String {
    let mut escaped = String::new();
    for c in text.to_string().chars() {
        if c.is_control() { escaped.extend(c.escape_default()) } else { escaped.push(c) }
    }
    escaped
}
