//! A trait of another crate may have methods with the names of the memfile's own.
use leasemgr::ManagedLease;
use leasemgr::lease::Lease4;

trait Own: Sized {
    fn key(&self) -> u8 {
        1
    }
    fn write_row(&self, _: &mut Vec<u8>) {}
    fn stored_client(&self) -> u8 {
        2
    }
}

impl<L: ManagedLease> Own for L {}

fn sum<L: ManagedLease>(lease: &L) -> u8 {
    lease.write_row(&mut Vec::new());
    lease.key() + lease.stored_client()
}

fn main() {
    let lease = Lease4::builder([192, 0, 2, 1].into()).client(leasemgr::lease::HwAddr::from([2, 0, 0, 0, 0, 1]));
    assert_eq!(sum(&lease.build().unwrap()), 3);
}
