//! Two network namespaces of our own, `near` and `far`, with a TUN device each: whoever runs in one reaches the other only
//! by way of whoever reads the devices.
//!
//! Names have our process number in them. They are removed when this is dropped and also when the process ends in any
//! other way: a shell holds the reading end of a pipe that closes with us.

use super::Side;
use super::relay::MTU;
use crate::process::{Error, Result};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::{fs, io, thread};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Packets that a device holds for the relay: more than all windows together, so that packets are lost in the path's
/// queue only, and are counted there.
const DEVICE_PACKETS: u32 = 50_000;

/// Of the namespace that looks.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Both namespaces.
#[derive(Debug)]
pub(super) struct Spaces {
    janitor: Child,
    /// What keeps the janitor waiting.
    leash: Option<ChildStdin>,
}

impl Spaces {
    /// Makes them, with their devices up.
    ///
    /// # Errors
    /// What this machine or this user lacks, and how to get it.
    pub(super) fn new() -> Result<(Self, [SyncDevice; 2])> {
        check_needs()?;
        let mut janitor = janitor()?;
        let leash = janitor.stdin.take();
        let spaces = Self { janitor, leash };
        let near = spaces.make(Side::Near)?;
        let far = spaces.make(Side::Far)?;
        Ok((spaces, [near, far]))
    }

    /// A command that runs `program` inside.
    pub(super) fn command(&self, side: Side, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &name(side)]).arg(program);
        command
    }

    /// Runs `body` in a thread of its own inside.
    pub(super) fn inside<T: Send>(&self, side: Side, body: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        let space = File::open(format!("/run/netns/{}", name(side)))?;
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        let enter = || rustix::thread::move_into_link_name_space(rustix::fd::AsFd::as_fd(&space), network);
        thread::scope(|scope| scope.spawn(|| enter().map_err(Into::into).and_then(|()| body())).join())
            .expect("its panic was told")
    }

    /// Forgets what TCP has learned about the path: every copy is the first.
    pub(super) fn forget(&self) -> Result<()> {
        Side::BOTH.iter().try_for_each(|side| ip(&["-n", &name(*side), "tcp_metrics", "flush"]))
    }

    pub(super) fn congestion_control(&self) -> Result<String> {
        Ok(self.inside(Side::Near, || fs::read_to_string(CONGESTION_CONTROL))?.trim_end().to_owned())
    }

    /// For the connections of both sides.
    pub(super) fn choose_congestion_control(&self, algorithm: &str) -> Result<()> {
        for side in Side::BOTH {
            self.inside(side, || fs::write(CONGESTION_CONTROL, algorithm)).map_err(|error| {
                let help = "in a namespace only what net.ipv4.tcp_allowed_congestion_control has can be chosen";
                Error::Program(format!("congestion control {algorithm}: {error}; {help}"))
            })?;
        }
        Ok(())
    }

    fn make(&self, side: Side) -> Result<SyncDevice> {
        let (space, device) = (name(side), device(side));
        ip(&["netns", "add", &space])?;
        let tun = DeviceBuilder::new().name(&device).build_sync()?;
        ip(&["link", "set", &device, "netns", &space])?;
        ip(&["-n", &space, "link", "set", "lo", "up"])?;
        ip(&["-n", &space, "address", "add", &format!("{}/24", side.address()), "dev", &device])?;
        let (mtu, packets) = (MTU.to_string(), DEVICE_PACKETS.to_string());
        ip(&["-n", &space, "link", "set", &device, "mtu", &mtu, "txqueuelen", &packets, "up"])?;
        Ok(tun)
    }
}

impl Drop for Spaces {
    fn drop(&mut self) {
        self.leash = None;
        _ = self.janitor.wait();
    }
}

fn name(side: Side) -> String {
    format!("pdcp-{}-{}", std::process::id(), side.name())
}

/// At most 15 bytes, as Linux wants it.
fn device(side: Side) -> String {
    format!("pdcp{}{}", std::process::id(), &side.name()[..1])
}

fn check_needs() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(lacking("root: network namespaces are for nobody else"));
    }
    if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        return Err(lacking("the command 'ip': apt-get install iproute2"));
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(lacking("/dev/net/tun: 'modprobe tun', or in a container '--device /dev/net/tun'"));
    }
    Ok(())
}

/// Waits until the pipe closes, whatever signal comes, and removes both names.
fn janitor() -> io::Result<Child> {
    let (near, far) = (name(Side::Near), name(Side::Far));
    Command::new("sh")
        .args(["-c", "cat; for name; do ip netns delete \"$name\"; done", "sh", &near, &far])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0) // the terminal's Ctrl-C is not for it
        .spawn()
}

fn lacking(what: &str) -> Error {
    Error::Program(format!("the long path needs {what}"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Program(format!("ip {}: {}", arguments.join(" "), said.trim_end())))
}
