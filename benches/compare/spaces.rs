//! Two hosts, as far as a program can tell: network namespaces of our own, `near` and `far`, that reach each other and
//! nobody else.
//!
//! They are joined by a wire of the kernel's, or have a TUN device each, and then whoever reads the devices is the wire.
//! Names have our process number in them. A janitor removes them.

use crate::janitor::Janitor;
use crate::process::{Error, Result};
use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::{fs, io, thread};
use tun_rs::{DeviceBuilder, SyncDevice};

/// Packets that a device holds for who reads it: more than all windows together, so that packets are lost in a relay's
/// queue only, and are counted there.
const DEVICE_PACKETS: u32 = 50_000;

/// Of the namespace that looks.
const CONGESTION_CONTROL: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Side {
    /// Where the client is.
    Near,
    /// Where the server is.
    Far,
}

impl Side {
    const BOTH: [Self; 2] = [Self::Near, Self::Far];

    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    /// Of the block that is set aside for benchmarks (RFC 2544).
    pub(crate) fn address(self) -> Ipv4Addr {
        match self {
            Self::Near => Ipv4Addr::new(198, 18, 0, 1),
            Self::Far => Ipv4Addr::new(198, 18, 0, 2),
        }
    }
}

/// Both namespaces.
#[derive(Debug)]
pub(crate) struct Spaces {
    names: [String; 2],
    _janitor: Janitor,
}

impl Spaces {
    /// Joined by a wire that carries all that the cores can.
    ///
    /// # Errors
    /// What this machine or this user lacks, and how to get it.
    pub(crate) fn wired() -> Result<Self> {
        let spaces = Self::new("wired")?;
        let [near, far] = &spaces.names;
        let [near_device, far_device] = Side::BOTH.map(device);
        let peer = ["type", "veth", "peer", "name", &far_device, "netns", far];
        ip(&[&["link", "add", &near_device, "netns", near][..], &peer].concat())?;
        Side::BOTH.iter().try_for_each(|side| spaces.bring_up(*side, &[]))?;
        Ok(spaces)
    }

    /// With a device each for somebody who carries packets of at most `packet_bytes` between them.
    ///
    /// # Errors
    /// As [`Self::wired`].
    pub(crate) fn unwired(packet_bytes: usize) -> Result<(Self, [SyncDevice; 2])> {
        if !Path::new("/dev/net/tun").exists() {
            return Err(lacking("/dev/net/tun: 'modprobe tun', or in a container '--device /dev/net/tun'"));
        }
        let spaces = Self::new("unwired")?;
        let devices = [spaces.attach(Side::Near, packet_bytes)?, spaces.attach(Side::Far, packet_bytes)?];
        Ok((spaces, devices))
    }

    fn new(kind: &str) -> Result<Self> {
        check_needs()?;
        let names = Side::BOTH.map(|side| format!("pdcp-{}-{kind}-{}", std::process::id(), side.name()));
        let janitor = Janitor::hire("for name; do ip netns delete \"$name\"; done", &names)?;
        let spaces = Self { names, _janitor: janitor };
        spaces.names.iter().try_for_each(|name| ip(&["netns", "add", name]))?;
        Ok(spaces)
    }

    fn name(&self, side: Side) -> &str {
        let [near, far] = &self.names;
        match side {
            Side::Near => near,
            Side::Far => far,
        }
    }

    /// Runs `body` in a thread of its own inside, where the processes that it starts stay.
    pub(crate) fn inside<T, E>(
        &self,
        side: Side,
        body: impl FnOnce() -> std::result::Result<T, E> + Send,
    ) -> std::result::Result<T, E>
    where
        T: Send,
        E: From<io::Error> + Send,
    {
        let space = File::open(format!("/run/netns/{}", self.name(side)))?;
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        let enter = || rustix::thread::move_into_link_name_space(rustix::fd::AsFd::as_fd(&space), network);
        let entered = || enter().map_err(|error| E::from(error.into())).and_then(|()| body());
        thread::scope(|scope| scope.spawn(entered).join()).expect("its panic was told")
    }

    /// Forgets what TCP has learned about the path: every copy is the first.
    pub(crate) fn forget(&self) -> Result<()> {
        self.names.iter().try_for_each(|name| ip(&["-n", name, "tcp_metrics", "flush"]))
    }

    pub(crate) fn congestion_control(&self) -> Result<String> {
        Ok(self.inside(Side::Near, || fs::read_to_string(CONGESTION_CONTROL))?.trim_end().to_owned())
    }

    /// For the connections of both sides.
    pub(crate) fn choose_congestion_control(&self, algorithm: &str) -> Result<()> {
        for side in Side::BOTH {
            self.inside(side, || fs::write(CONGESTION_CONTROL, algorithm)).map_err(|error| {
                let help = "in a namespace only what net.ipv4.tcp_allowed_congestion_control has can be chosen";
                Error::Program(format!("congestion control {algorithm}: {error}; {help}"))
            })?;
        }
        Ok(())
    }

    fn attach(&self, side: Side, packet_bytes: usize) -> Result<SyncDevice> {
        let tun = DeviceBuilder::new().name(device(side)).build_sync()?;
        ip(&["link", "set", &device(side), "netns", self.name(side)])?;
        let (mtu, packets) = (packet_bytes.to_string(), DEVICE_PACKETS.to_string());
        self.bring_up(side, &["mtu", &mtu, "txqueuelen", &packets])?;
        Ok(tun)
    }

    fn bring_up(&self, side: Side, settings: &[&str]) -> Result<()> {
        let (space, device) = (self.name(side), device(side));
        ip(&["-n", space, "link", "set", "lo", "up"])?;
        ip(&["-n", space, "address", "add", &format!("{}/24", side.address()), "dev", &device])?;
        ip(&[&["-n", space, "link", "set", &device][..], settings, &["up"]].concat())
    }
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
    Ok(())
}

fn lacking(what: &str) -> Error {
    Error::Program(format!("two hosts on this machine need {what}"))
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::Program(format!("ip {}: {}", arguments.join(" "), said.trim_end())))
}
