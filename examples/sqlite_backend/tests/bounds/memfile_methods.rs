use leasemgr::ManagedLease;

fn row<L: ManagedLease>(lease: &L) -> Vec<u8> {
    let mut row = Vec::new();
    lease.write_row(&mut row);
    row
}

fn client<L: ManagedLease>(lease: &L) -> &[u8] {
    lease.stored_client()
}

fn key<L: ManagedLease>(lease: &L) {
    let _ = lease.key();
}

fn main() {}
