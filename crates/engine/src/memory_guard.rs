//! Keeps the device from running out while the server runs: by MLX's own figures, and on a Mac by
//! what the system says of everybody's memory.
//!
//! Weights and K/V pool are allocated at the start and do not grow, and a decode step takes
//! little. What grows is a prefill. So under pressure the buffers that MLX keeps for later are
//! given back, and when it is critical no prompt begins beside requests that run; they end and
//! the next one runs alone. The queue holds the others, as when the pool is full.

use std::{
    io,
    process::Command,
    sync::{
        Arc, Weak,
        atomic::{AtomicU8, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Between two questions to the system, and between two releases of what MLX keeps: a step
/// fills that again, and would pay for it each time.
const EVERY: Duration = Duration::from_secs(2);

/// How short memory is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pressure {
    /// There is enough.
    #[default]
    Normal,
    /// Give back what is not needed.
    Warning,
    /// Begin nothing that takes more.
    Critical,
}

/// When buffers were last given back.
#[derive(Debug, Default)]
pub(crate) struct Releases {
    last: Option<Instant>,
}

impl Releases {
    /// Whether it is time again; then this was the time.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|last| now.duration_since(last) >= EVERY);
        if is_due {
            self.last = Some(now);
        }
        is_due
    }
}

/// Watches one device's memory.
#[derive(Debug)]
pub(crate) struct MemoryGuard {
    /// What MLX may hold, bytes.
    limit_bytes: usize,
    /// The system's word, as [`from_macos`] reads it; `None` where it gives none.
    system: Option<Arc<AtomicU8>>,
}

impl MemoryGuard {
    /// For a device with so many bytes.
    ///
    /// # Errors
    /// The system gives no thread to watch it with.
    pub(crate) fn new(limit_bytes: usize) -> io::Result<Self> {
        let system = match cfg!(target_os = "macos") {
            true => Some(watch_system()?),
            false => None,
        };
        Ok(Self { limit_bytes, system })
    }

    /// With so many bytes held by arrays.
    pub(crate) fn pressure(&self, active_bytes: usize) -> Pressure {
        let system = self.system.as_ref().map(|level| from_macos(level.load(Ordering::Relaxed)));
        of_device(active_bytes, self.limit_bytes).max(system.unwrap_or_default())
    }
}

fn of_device(active_bytes: usize, limit_bytes: usize) -> Pressure {
    match active_bytes {
        bytes if bytes > limit_bytes => Pressure::Critical,
        bytes if bytes > limit_bytes / 32 * 31 => Pressure::Warning,
        _ => Pressure::Normal,
    }
}

/// Values of `kern.memorystatus_vm_pressure_level`.
fn from_macos(level: u8) -> Pressure {
    match level {
        4 => Pressure::Critical,
        2 => Pressure::Warning,
        _ => Pressure::Normal,
    }
}

/// Asks from a thread of its own, which ends with the guard: an answer takes milliseconds.
fn watch_system() -> io::Result<Arc<AtomicU8>> {
    let level = Arc::new(AtomicU8::new(0));
    let theirs = Arc::downgrade(&level);
    thread::Builder::new().name("memory-guard".to_owned()).spawn(move || {
        while let Some(level) = Weak::upgrade(&theirs) {
            level.store(macos_level().unwrap_or(0), Ordering::Relaxed);
            drop(level);
            thread::sleep(EVERY);
        }
    })?;
    Ok(level)
}

fn macos_level() -> Option<u8> {
    let args = ["-n", "kern.memorystatus_vm_pressure_level"];
    let output = Command::new("/usr/sbin/sysctl").args(args).output().ok()?;
    String::from_utf8(output.stdout).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_given_back_at_most_every_two_seconds() {
        let start = Instant::now();
        let mut releases = Releases::default();
        let due = [0, 1, 1999, 2000, 2001, 3999, 9000]
            .map(|millis| releases.is_due(start + Duration::from_millis(millis)));
        assert_eq!(due, [true, false, false, true, false, false, true]);
    }

    #[test]
    fn the_worse_of_device_and_system_counts() {
        let guard = |level: Option<u8>| MemoryGuard {
            limit_bytes: 3200,
            system: level.map(|level| Arc::new(AtomicU8::new(level))),
        };
        for (level, active_bytes, expected) in [
            (None, 3100, Pressure::Normal),
            (None, 3101, Pressure::Warning),
            (None, 3200, Pressure::Warning),
            (None, 3201, Pressure::Critical),
            (Some(1), 0, Pressure::Normal),
            (Some(2), 0, Pressure::Warning),
            (Some(4), 0, Pressure::Critical),
            (Some(2), 3201, Pressure::Critical),
        ] {
            assert_eq!(guard(level).pressure(active_bytes), expected, "{level:?} {active_bytes}");
        }
    }
}
