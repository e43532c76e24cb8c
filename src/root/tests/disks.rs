//! Disks that are full, read-only or devices: most of it needs root to set up.

use super::*;
use crate::failure::Kind;
use crate::root::Source;
use std::io::{Seek, SeekFrom, Write};

/// A small file system in memory, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    fn new(options: &str) -> Option<Self> {
        let disk = Self(tempfile::tempdir().unwrap());
        let mounted =
            is_root() && run("mount", &["-t", "tmpfs", "-o", options, "none", disk.0.path().to_str().unwrap()]);
        mounted.then_some(disk)
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        bytes(&self.0.path().join(name))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &["-l", self.0.path().to_str().unwrap()]);
    }
}

#[test]
fn a_full_disk_is_told_as_that() {
    let Some(disk) = Disk::new("size=1m,nr_inodes=3") else {
        return skipped("a full disk: needs root and mount");
    };
    // The root directory, this file, and one that is being made.
    fs::write(disk.0.path().join("file"), "old").unwrap();
    let target = open(&request(&disk.bytes("new"))).unwrap();
    let chunk = vec![1; 1 << 20];
    let written = rustix::io::pwrite(target.file().unwrap(), &chunk, 0).unwrap();
    let full = rustix::io::pwrite(target.file().unwrap(), &chunk, written as u64).unwrap_err();
    assert_eq!(RootError::from(full), RootError::NoSpace);
    assert_eq!(RootError::from(crate::completion::Errno(full.raw_os_error())), RootError::NoSpace);
    // No inode is left either.
    assert_eq!(open(&request(&disk.bytes("another"))).unwrap_err(), RootError::NoSpace);
    assert_eq!(open(&request(&disk.bytes("dir/another"))).unwrap_err(), RootError::NoSpace);
    target.abandon(false);
    assert_eq!(fs::read_dir(disk.0.path()).unwrap().count(), 1);
}

#[test]
fn a_file_too_large_for_its_disk_is_told_as_that() {
    let scratch = Scratch::new();
    let target = scratch.open("file").unwrap();
    let source = Metadata { bytes: crate::limits::FILE_BYTES_MAX, ..source("") };
    match target.commit(&source, false) {
        Err((error, _)) => assert_eq!(error, RootError::TooLarge),
        Ok(_) => skipped("a file too large: this file system takes any length"),
    }
}

#[test]
fn a_read_only_disk_is_told_as_that() {
    let Some(disk) = Disk::new("size=1m") else {
        return skipped("a read-only disk: needs root and mount");
    };
    fs::write(disk.0.path().join("file"), "old").unwrap();
    assert!(run("mount", &["-o", "remount,ro", disk.0.path().to_str().unwrap()]));
    for name in ["file", "new", "dir/new"] {
        assert_eq!(open(&request(&disk.bytes(name))).unwrap_err(), RootError::ReadOnly);
        // Looking needs no right to write.
        assert!(open(&TargetRequest { dry_run: true, ..request(&disk.bytes(name)) }).is_ok());
    }
}

/// Trigger: the source is a device to which nothing is attached, so that it has no bytes. Damage: the target was emptied, exit 0.
#[test]
fn a_block_device_of_nothing_is_no_source() {
    // The last of those that are there from the start: who needs one takes the first that is free.
    let (device, backing) = ("/dev/loop7", "/sys/block/loop7/loop/backing_file");
    if !is_root() || !Path::new(device).exists() || Path::new(backing).exists() {
        return skipped("a block device of nothing: needs root and a free /dev/loop7");
    }
    let error = Source::open(Root::Typed, device.as_bytes(), &NOTHING_WITHHELD).unwrap_err();
    assert_eq!((error.source_kind(), &error), (Kind::Source, &RootError::NoMedium));
}

#[test]
fn a_block_device_is_a_source_of_its_size() {
    let scratch = Scratch::new();
    let path = scratch.write("image", "");
    fs::File::options().write(true).open(&path).unwrap().set_len(3 << 20).unwrap();
    let made = std::process::Command::new("losetup").args(["--find", "--show"]).arg(&path).output();
    let device = match made {
        Ok(output) if is_root() && output.status.success() => String::from_utf8(output.stdout).unwrap(),
        _ => return skipped("a block device as source: needs root and losetup"),
    };
    let device = device.trim_end();
    let source = Source::open(Root::Typed, device.as_bytes(), &NOTHING_WITHHELD);
    let target = open(&request(device.as_bytes()));
    let unchanged = source.as_ref().map(|source| {
        // Its times move with whoever writes to the node, or do not; they mean nothing.
        let mut file = fs::File::options().write(true).open(device).unwrap();
        file.seek(SeekFrom::Start(4096)).unwrap();
        file.write_all(b"changed").unwrap();
        set_mtime(Path::new(device), MTIME);
        source.unchanged()
    });
    assert!(run("losetup", &["--detach", device]));
    assert_eq!(target.unwrap_err(), RootError::BlockDeviceTarget);
    assert_eq!(unchanged.unwrap(), Ok(true));
    let facts = *source.unwrap().facts();
    assert_eq!((facts.bytes, facts.device_node, facts.sparse), (3 << 20, true, false));
    assert!(facts.metadata().device_node);
}
