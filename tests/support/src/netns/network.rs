//! A bridge and the pods on it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::ops::Deref;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::capture::Capture;
use super::namespace::Namespace;
use super::running::{Finished, Running};
use crate::bin_path::binary;

/// User and group id that redirect rules leave alone unless told otherwise: run a pod's proxy with it.
pub const PROXY_UID: u32 = 1337;

/// Pods reach each other directly; every other address is unreachable, and said to be so at once.
///
/// The bridge has 10.11.0.1/16 and `fd11::1/64`. Service addresses need no interface: a pod's redirect rules take the
/// connection before it leaves, and without rules it fails.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    pods: AtomicU8,
}

impl Network {
    /// A network without pods.
    ///
    /// # Errors
    /// For want of privileges, or of bridges in the kernel.
    pub fn new() -> anyhow::Result<Self> {
        let switch = Namespace::create("switch")?;
        switch.ip_batch(
            "link add br0 type bridge mcast_snooping 0\n\
             address add 10.11.0.1/16 dev br0\n\
             address add fd11::1/64 dev br0 nodad\n\
             link set br0 up\n\
             route add unreachable default\n\
             route add unreachable ::/0\n",
        )?;
        // A router answers for what it cannot reach; a mere neighbour is silent, and connections hang.
        switch.enter(|| {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
            Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
        })?;
        Ok(Self { switch, pods: AtomicU8::new(2) })
    }

    /// Adds a pod with an address of each family on `eth0`.
    ///
    /// # Errors
    /// When its namespace or interface cannot be made.
    pub fn pod(&self, name: &str) -> anyhow::Result<Pod> {
        let number = self.pods.fetch_add(1, Ordering::Relaxed);
        ensure!(number > 1, "a network has room for 254 pods");
        let namespace = Namespace::create(name)?;
        let (v4, v6) = (Ipv4Addr::new(10, 11, 0, number), Ipv6Addr::new(0xfd11, 0, 0, 0, 0, 0, 0, u16::from(number)));
        namespace.ip_batch(&format!("link add eth0 type veth peer name p{number} netns {}\n", self.switch.name()))?;
        self.switch.ip_batch(&format!("link set p{number} master br0 up\n"))?;
        namespace.ip_batch(&format!(
            "address add {v4}/16 dev eth0\n\
             address add {v6}/64 dev eth0 nodad\n\
             link set eth0 up\n\
             route add default via 10.11.0.1\n\
             route add ::/0 via fd11::1\n",
        ))?;
        Ok(Pod { namespace, v4, v6 })
    }

    /// Records what goes over the wire between pods from now on. Traffic within a pod is not on the wire.
    ///
    /// # Errors
    /// For want of privileges.
    pub fn capture(&self) -> anyhow::Result<Capture> {
        self.switch.enter(Capture::start)
    }
}

/// A namespace on a [`Network`]; also everything a [`Namespace`] is.
#[derive(Debug)]
pub struct Pod {
    namespace: Namespace,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Deref for Pod {
    type Target = Namespace;

    fn deref(&self) -> &Namespace {
        &self.namespace
    }
}

impl Pod {
    /// Its IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        self.v4
    }

    /// Its IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        self.v6
    }

    /// Its address of a family, IPv6 if `ipv6`.
    pub fn ip(&self, ipv6: bool) -> IpAddr {
        if ipv6 { self.v6.into() } else { self.v4.into() }
    }

    /// Runs a program as root to its end and gives what it printed; its exit status is for the caller to judge.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn output(&self, program: &str, args: &[&str]) -> anyhow::Result<Finished> {
        let mut command = self.command(program);
        command.args(args);
        Finished::of(command)
    }

    /// Starts a program as root.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, program: &str, args: &[&str]) -> anyhow::Result<Running> {
        let mut command = self.command(program);
        command.args(args);
        Running::start(program, command)
    }

    /// Runs `tulle-init` in the pod. Without `--remove` and the like it puts the redirect rules in force.
    ///
    /// # Errors
    /// When it fails, with what it said.
    pub fn redirect(&self, args: &[&str]) -> anyhow::Result<()> {
        let mut command = self.command(binary("tulle-injector", "tulle-init")?);
        command.args(args);
        let done = Finished::of(command)?;
        ensure!(done.success, "tulle-init {}: {}", args.join(" "), done.stderr);
        Ok(())
    }

    /// Waits until something in the pod accepts connections on `port` of its own addresses (not through the rules: a
    /// dial within the pod is never captured).
    ///
    /// # Errors
    /// When nothing did within 10 s.
    pub fn wait_listening(&self, port: u16) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(10);
        let address = SocketAddr::from((self.v4, port));
        self.enter(|| {
            // The kernel has no event for "some process listens now".
            while TcpStream::connect(address).is_err() {
                if Instant::now() > deadline {
                    bail!("nothing listens on {address} after 10 s");
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
            Ok(())
        })
    }
}
