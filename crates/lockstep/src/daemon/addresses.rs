//! The addresses that an invite offers, and the host name that peers show for us.

use nix::ifaddrs::getifaddrs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Addresses in one invite: each makes the code longer and a failed join slower.
const OFFERED_MAX: usize = 8;

/// Where others can reach a listener bound to `listening`: that address, or if it stands for every
/// interface, theirs; loopback last, for a peer on the same machine.
pub fn offered(listening: SocketAddr) -> Vec<SocketAddr> {
    if !listening.ip().is_unspecified() {
        return vec![listening];
    }
    let v6_too = listening.is_ipv6();
    let mut ips: Vec<IpAddr> =
        interfaces().into_iter().filter(|ip| reachable(ip) && (v6_too || ip.is_ipv4())).collect();
    ips.dedup();
    ips.truncate(OFFERED_MAX - 1);
    ips.push(if v6_too { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() });
    ips.into_iter().map(|ip| SocketAddr::new(ip, listening.port())).collect()
}

/// This machine's name.
pub fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .ok()
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "unnamed".to_owned())
}

fn interfaces() -> Vec<IpAddr> {
    let found = getifaddrs().inspect_err(|e| tracing::warn!(%e, "cannot list interfaces"));
    found
        .into_iter()
        .flatten()
        .filter_map(|interface| interface.address)
        .filter_map(|address| {
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip())))
        })
        .collect()
}

/// Whether another machine could dial it as it stands: link-local addresses lack their scope.
fn reachable(ip: &IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !link_local
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_certain_address_is_offered_as_it_is() {
        let address = "192.0.2.1:7".parse().unwrap();
        assert_eq!(offered(address), [address]);
    }

    #[test]
    fn every_interface_means_each_of_them_and_loopback_last() {
        let offered = offered("0.0.0.0:7".parse().unwrap());
        assert!(offered.len() <= OFFERED_MAX);
        assert!(offered.iter().all(|a| a.is_ipv4() && a.port() == 7 && !a.ip().is_unspecified()));
        assert_eq!(offered.last(), Some(&"127.0.0.1:7".parse().unwrap()));
        assert_eq!(offered.iter().filter(|a| a.ip().is_loopback()).count(), 1);
    }
}
