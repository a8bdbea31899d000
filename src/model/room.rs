// SPDX-License-Identifier: MPL-2.0
//! How much of a machine's memory the streams of a model may take together where nobody says.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::Device;

/// What streams take of what is free when the first of them opens: the rest is for what a pass of the
/// model needs, and for everybody else.
const SHARE: f64 = 0.5;

/// What all streams of a model may take together.
#[derive(Debug)]
pub(crate) struct Room {
    bytes: u64,
    takers: AtomicUsize,
}

impl Room {
    /// Half of what is free where the model runs; `None` where that cannot be found out.
    pub fn of(device: &Device) -> Option<Arc<Self>> {
        let bytes = (free(device)? as f64 * SHARE) as u64;
        Some(Arc::new(Self { bytes, takers: AtomicUsize::new(0) }))
    }

    /// So many bytes.
    #[cfg(test)]
    fn with(bytes: u64) -> Arc<Self> {
        Arc::new(Self { bytes, takers: AtomicUsize::new(0) })
    }
}

/// One stream's part of what all of a model may take; it grows when another one goes.
#[derive(Debug)]
pub struct MemoryShare(Arc<Room>);

impl MemoryShare {
    pub(crate) fn of(room: Arc<Room>) -> Self {
        room.takers.fetch_add(1, Ordering::Relaxed);
        Self(room)
    }

    /// Bytes that this stream may take now.
    pub fn bytes(&self) -> u64 {
        self.all() / self.takers() as u64
    }

    /// Bytes that all may take together.
    pub fn all(&self) -> u64 {
        self.0.bytes
    }

    /// Streams that take a part, this one included.
    pub fn takers(&self) -> usize {
        self.0.takers.load(Ordering::Relaxed).max(1)
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.0.takers.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PartialEq for MemoryShare {
    /// A part is only itself.
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for MemoryShare {}

/// Bytes that are free on a device, or in main memory and within the process's control group.
fn free(device: &Device) -> Option<u64> {
    match device {
        Device::Cpu => on_host(),
        device => on_device(device),
    }
}

fn on_host() -> Option<u64> {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let groups = in_groups(Path::new("/sys/fs/cgroup"), &own);
    // What a container has, of either version of groups.
    let outermost = system.cgroup_limits().map(|own| own.total_memory.saturating_sub(own.rss));
    let free = Some(system.available_memory()).filter(|free| *free > 0)?;
    [groups, outermost].into_iter().flatten().fold(free, u64::min).into()
}

/// What the control groups of a process leave it: the least that one of them does (cgroup v2). `own`: its
/// `/proc/self/cgroup`. Pages of files do not count, since they go where room is needed.
fn in_groups(root: &Path, own: &str) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let read = |path: PathBuf| std::fs::read_to_string(path).ok();
    let of = |group: &Path| -> Option<u64> {
        let group = root.join(group);
        let most: u64 = read(group.join("memory.max"))?.trim().parse().ok()?;
        let stat = read(group.join("memory.stat"))?;
        let taken =
            stat.lines().find_map(|line| line.strip_prefix("anon "))?.trim().parse().ok()?;
        Some(most.saturating_sub(taken))
    };
    Path::new(path).ancestors().filter_map(of).min()
}

#[cfg(feature = "cuda")]
fn on_device(device: &Device) -> Option<u64> {
    use candle_core::cuda::cudarc::driver::result;
    let cuda = device.as_cuda_device().ok()?;
    cuda.cuda_stream().context().bind_to_thread().ok()?;
    let (free, _) = result::mem_get_info().ok()?;
    Some(free as u64)
}

#[cfg(not(feature = "cuda"))]
fn on_device(_: &Device) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_share_evenly_what_there_is() {
        let room = Room::with(1200);
        let first = MemoryShare::of(Arc::clone(&room));
        assert_eq!((first.bytes(), first.takers()), (1200, 1));
        let others: Vec<MemoryShare> = (0..2).map(|_| MemoryShare::of(Arc::clone(&room))).collect();
        assert_eq!((first.bytes(), others[0].bytes()), (400, 400));
        drop(others);
        assert_eq!((first.bytes(), first.all()), (1200, 1200));
    }

    #[test]
    fn a_control_group_bounds_what_is_in_it() {
        let root = tempfile::tempdir().unwrap();
        let group = |path: &str, most: &str, anon: u64| {
            let group = root.path().join(path);
            std::fs::create_dir_all(&group).unwrap();
            std::fs::write(group.join("memory.max"), most).unwrap();
            std::fs::write(group.join("memory.stat"), format!("anon {anon}\nfile 900\n")).unwrap();
        };
        group("cameras.slice", "1000\n", 100);
        group("cameras.slice/door.service", "max\n", 60);
        let free = |own: &str| in_groups(root.path(), own);
        assert_eq!(free("0::/cameras.slice/door.service\n"), Some(900));
        group("cameras.slice/door.service", "500\n", 60);
        assert_eq!(free("0::/cameras.slice/door.service\n"), Some(440));
        assert_eq!(free("0::/cameras.slice\n"), Some(900));
        // As a container sees its own.
        group("", "700\n", 800);
        assert_eq!(free("0::/\n"), Some(0));
        // The first version's, and no group at all.
        assert_eq!((free("3:memory:/cameras.slice\n"), free("")), (None, None));
    }

    #[test]
    fn the_machine_says_how_much_is_free() {
        let room = Room::of(&Device::Cpu).unwrap();
        assert!(room.bytes > 1 << 20, "{} bytes", room.bytes);
    }
}
