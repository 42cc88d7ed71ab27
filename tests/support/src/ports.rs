//! Addresses on loopback that tests running side by side do not share.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// A port on 127.0.0.1 that nobody listens on now. Another process may take it before it is used, so prefer port 0
/// where the listener can tell its port, and [`loopback`] where it cannot.
pub fn free() -> SocketAddr {
    free_at(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// A port on 127.0.0.1 outside of the range that the kernel gives to outgoing connections, so that none of these takes it
/// before it is used.
pub fn reserved() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = std::process::id().wrapping_mul(37);
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (first.wrapping_add(step) % 12_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Like [`free`], at `ip`.
pub fn free_at(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).expect("a free port");
    listener.local_addr().expect("a bound socket has an address")
}

/// An address in 127.0.0.0/8 for this call alone: any port on it is free for the caller, fixed ones too. The process
/// id picks a /24 outside of 127.0.0.0/16 and 127.1.0.0/16, a counter the host.
pub fn loopback() -> IpAddr {
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = (std::process::id() as u16 ^ (count / 250)).to_be_bytes();
    let host = (count % 250 + 1) as u8;
    IpAddr::V4(Ipv4Addr::new(127, 2 + high % 200, low, host))
}
