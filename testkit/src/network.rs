//! A network namespace of the test's own, in which packets can be dropped (nftables).

use super::programs::{program, run};
use std::io;

/// Moves this thread, and all programs and threads that it starts later, into a new network
/// namespace with a loopback interface. Fails if this user or container may not have a namespace,
/// or if the kernel lacks nftables.
pub fn enter_own() -> io::Result<()> {
    // SAFETY: The call takes no pointer. It changes only the network of this thread.
    if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
        return Err(io::Error::last_os_error());
    }
    run(program("ip").args(["link", "set", "lo", "up"])).ok();
    let rules = run(program("nft").args(["list", "ruleset"]));
    match rules.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(rules.err)),
    }
}

/// Drops the next packets to this TCP port, until they have `bytes` bytes. Requests for a connection
/// pass. Earlier rules end.
pub fn drop_packets(port: u16, bytes: u32) {
    let rules = format!(
        "flush ruleset
        table ip own {{
            chain input {{
                type filter hook input priority 0;
                tcp dport {port} tcp flags & syn == 0 quota until {bytes} bytes counter drop
            }}
        }}"
    );
    run(program("nft").arg(rules)).ok();
}

/// Returns the number of packets that [`drop_packets`] dropped.
pub fn dropped() -> u64 {
    let rules = run(program("nft").args(["list", "ruleset"])).ok().text();
    let count = rules.split("counter packets ").nth(1);
    let count = count.and_then(|rest| rest.split(' ').next()?.parse().ok());
    count.unwrap_or_else(|| panic!("no counter in {rules}"))
}
