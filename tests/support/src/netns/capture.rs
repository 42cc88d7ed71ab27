//! What went over the wire: a packet socket in the bridge's namespace, read once the traffic is over.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};

/// The kernel queues packets as they pass, so nothing is lost between the traffic and [`Capture::stop`].
const BUFFER_BYTES: usize = 64 << 20;
/// Largest frame: a segmentation-offloaded packet of 64 KiB and its headers.
const FRAME_BYTES: usize = 68 << 10;

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    socket: Socket,
}

impl Capture {
    /// Starts in the namespace of the calling thread.
    pub(super) fn start() -> anyhow::Result<Self> {
        const ETH_P_ALL: u16 = 3;
        let all = Protocol::from(i32::from(ETH_P_ALL.to_be()));
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(all)).context("open packet socket")?;
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES).context("size packet buffer")?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket })
    }

    /// Ends it and gives the TCP packets in order. A packet is there once for each interface it passed.
    ///
    /// # Errors
    /// When the socket cannot be read.
    pub fn stop(mut self) -> anyhow::Result<Packets> {
        let mut frame = vec![0; FRAME_BYTES];
        let mut packets = Vec::new();
        loop {
            match self.socket.read(&mut frame) {
                Ok(length) => packets.extend(frame.get(..length).and_then(parse)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Packets(packets)),
                Err(error) => return Err(error).context("read packet socket"),
            }
        }
    }
}

/// TCP packets in the order in which they passed.
#[derive(Clone, Debug)]
pub struct Packets(Vec<Packet>);

/// One TCP packet.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Sender.
    pub from: SocketAddr,
    /// Receiver.
    pub to: SocketAddr,
    /// What it carried.
    pub payload: Vec<u8>,
}

impl Packets {
    /// All of them.
    pub fn all(&self) -> &[Packet] {
        &self.0
    }

    /// Whether a packet carried `marker`. Choose one that no segment boundary splits: short, near the start.
    pub fn contain(&self, marker: &[u8]) -> bool {
        self.0.iter().any(|packet| packet.payload.windows(marker.len()).any(|window| window == marker))
    }

    /// Packets with a payload between any port of `a` and any port of `b`, in either direction.
    pub fn between(&self, a: IpAddr, b: IpAddr) -> Self {
        let ends = |packet: &&Packet| {
            let (from, to) = (packet.from.ip(), packet.to.ip());
            !packet.payload.is_empty() && ((from, to) == (a, b) || (from, to) == (b, a))
        };
        Self(self.0.iter().filter(ends).cloned().collect())
    }

    /// Whether a TLS handshake passed: a handshake record with a `ClientHello`, then one with a `ServerHello`.
    pub fn show_tls_handshake(&self) -> bool {
        let hello =
            |packet: &Packet, kind: u8| matches!(packet.payload.as_slice(), [22, 3, _, _, _, k, ..] if *k == kind);
        let client = self.0.iter().position(|packet| hello(packet, 1));
        client.is_some_and(|client| self.0.iter().skip(client).any(|packet| hello(packet, 2)))
    }
}

/// A TCP packet in an Ethernet frame, if it is one.
fn parse(frame: &[u8]) -> Option<Packet> {
    let (ether_type, packet) = (frame.get(12..14)?, frame.get(14..)?);
    let (from, to, tcp): (IpAddr, IpAddr, &[u8]) = match ether_type {
        [0x08, 0x00] if *packet.get(9)? == 6 => {
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let length = usize::from(u16::from_be_bytes(packet.get(2..4)?.try_into().ok()?));
            let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            (address(12)?.into(), address(16)?.into(), packet.get(header..length)?)
        }
        [0x86, 0xdd] if *packet.get(6)? == 6 => {
            let length = usize::from(u16::from_be_bytes(packet.get(4..6)?.try_into().ok()?));
            let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            (address(8)?.into(), address(24)?.into(), packet.get(40..40 + length)?)
        }
        _ => return None,
    };
    let port = |at: usize| Some(u16::from_be_bytes(tcp.get(at..at + 2)?.try_into().ok()?));
    let payload = tcp.get(usize::from(tcp.get(12)? >> 4) * 4..)?.to_vec();
    Some(Packet { from: SocketAddr::new(from, port(0)?), to: SocketAddr::new(to, port(2)?), payload })
}
