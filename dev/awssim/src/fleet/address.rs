//! Loopback addresses of endpoints, and the hosts file that names them.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use tokio::net::TcpListener;

use super::{Fleet, FleetError, Placed};
use crate::world::ResourceId;

/// Addresses that are tried for one endpoint before giving up.
pub(super) const ADDRESS_TRIES_MAX: u32 = 10_000;
/// Addresses in 127.77.0.0/16 that are given out: 256 × 254.
const ADDRESSES: u32 = 256 * 254;
/// Which endpoint has which address.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Counts the addresses that were tried; one that became free is not given out again soon.
    next: u32,
    /// By what they belong to, then by host name.
    pub(super) by_owner: BTreeMap<ResourceId, BTreeMap<String, Placed>>,
}

impl Places {
    pub(super) fn all(&self) -> impl Iterator<Item = &Placed> {
        self.by_owner.values().flat_map(|it| it.values())
    }

    pub(super) fn put(&mut self, placed: Placed) {
        let of_owner = self.by_owner.entry(placed.endpoint.of()).or_default();
        of_owner.insert(placed.endpoint.host.clone(), placed);
    }
}

/// The address that the world names, or the next one whose port is free.
pub(super) async fn allocate(
    places: &mut Places,
    of: &ResourceId,
    wanted: Option<Ipv4Addr>,
    port: u16,
) -> Result<(Ipv4Addr, TcpListener), FleetError> {
    if let Some(address) = wanted {
        return Ok((address, bind(of, address, port).await?));
    }
    for _ in 0..ADDRESS_TRIES_MAX {
        let n = places.next % ADDRESSES;
        places.next = places.next.wrapping_add(1);
        let byte = |n: u32| u8::try_from(n).expect("below 256 by the bound on addresses");
        let address = Ipv4Addr::new(127, 77, byte(n / 254), byte(n % 254 + 1));
        if places
            .all()
            .any(|p| p.endpoint.address == address && p.endpoint.port == port)
        {
            continue;
        }
        match bind(of, address, port).await {
            Ok(listener) => return Ok((address, listener)),
            Err(FleetError::Address { source, .. })
                if source.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(FleetError::NoAddress { port })
}

pub(super) async fn bind(
    of: &ResourceId,
    address: Ipv4Addr,
    port: u16,
) -> Result<TcpListener, FleetError> {
    TcpListener::bind((address, port))
        .await
        .map_err(|source| FleetError::Address {
            of: of.clone(),
            address,
            port,
            source,
        })
}

pub(super) async fn write_hosts(fleet: &Fleet) -> Result<(), FleetError> {
    let endpoints = fleet.named_endpoints().await;
    let lines: Vec<String> = endpoints
        .iter()
        .map(|e| format!("{} {}\n", e.address, e.host))
        .collect();
    let path = fleet.hosts_file();
    replace_file(&path, &lines.concat()).map_err(|source| FleetError::Hosts { path, source })
}

/// Replaces what a file holds, and keeps the file: it may be mounted over another process's `/etc/hosts`. Who reads in the
/// middle sees new lines, then old ones. The time of change moves by a whole second at least, by which `libnss-wrapper`
/// sees that it has to read it again.
fn replace_file(path: &Path, text: &str) -> io::Result<()> {
    let before = std::fs::metadata(path)
        .and_then(|found| found.modified())
        .ok();
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)?;
    let least = before.map(|before| before + Duration::from_secs(1));
    if let Some(time) = least.filter(|least| *least > SystemTime::now()) {
        file.set_modified(time)?;
    }
    Ok(())
}
