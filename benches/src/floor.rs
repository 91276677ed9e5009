//! What no replicated store on this machine can go below: one synced append, one round trip.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// About a log entry with a put of 256 bytes.
const APPEND_BYTES: usize = 320;
const TURNS: usize = 1_000;

/// Medians, in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Floor {
    /// An append and an `fdatasync`.
    pub fdatasync_us: f64,
    /// A message over loopback TCP and back.
    pub round_trip_us: f64,
}

impl Floor {
    /// Measures in `dir`, where the systems will keep their data.
    pub fn measure(dir: &Path) -> io::Result<Self> {
        Ok(Self { fdatasync_us: fdatasync(dir)?, round_trip_us: round_trip()? })
    }

    /// Both, one after the other.
    pub fn total_us(&self) -> f64 {
        self.fdatasync_us + self.round_trip_us
    }
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

fn fdatasync(dir: &Path) -> io::Result<f64> {
    let path = dir.join("floor");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut times = Vec::with_capacity(TURNS);
    for _ in 0..TURNS {
        let started = Instant::now();
        file.write_all(&[b'v'; APPEND_BYTES])?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    drop(file);
    std::fs::remove_file(path)?;
    Ok(median_us(times))
}

fn round_trip() -> io::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let echo = std::thread::spawn(move || -> io::Result<()> {
        let mut message = [0; APPEND_BYTES];
        for _ in 0..TURNS {
            far.read_exact(&mut message)?;
            far.write_all(&message)?;
        }
        Ok(())
    });
    let mut message = [b'v'; APPEND_BYTES];
    let mut times = Vec::with_capacity(TURNS);
    for _ in 0..TURNS {
        let started = Instant::now();
        near.write_all(&message)?;
        near.read_exact(&mut message)?;
        times.push(started.elapsed());
    }
    echo.join().map_err(|_| io::Error::other("the echo thread crashed"))??;
    Ok(median_us(times))
}
