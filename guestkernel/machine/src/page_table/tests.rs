//! Page tables as a program and a device see them.

use super::*;

const RW: Access = Access::READ.union(Access::WRITE);

fn table_with(address: u64, pages: u64, access: Access) -> PageTable {
    let mut table = PageTable::new().unwrap();
    for page in 0..pages {
        let frame = Frame::zeroed().unwrap();
        table.map(address + page * 4096, frame, access).unwrap();
    }
    table
}

#[test]
fn bytes_cross_pages() {
    let table = table_with(0x1f_f000, 2, RW);
    table.write(0x1f_fffe, b"abcd").unwrap();
    let mut out = [0; 4];
    table.read(0x1f_fffe, &mut out).unwrap();
    assert_eq!(&out, b"abcd");
}

#[test]
fn what_is_missing_is_named() {
    let table = table_with(0x1000, 1, RW);
    let mut out = [0; 8];
    assert_eq!(
        table.read(0x1ffc, &mut out),
        Err(Missing { address: 0x2000 })
    );
    assert_eq!(
        table.read(u64::MAX - 3, &mut out),
        Err(Missing {
            address: u64::MAX - 3
        })
    );
    assert!(table.lookup(0xffff_8000_0000_0000).is_none());
}

#[test]
fn protection_is_kept() {
    let mut table = table_with(0x1000, 2, RW);
    table.write(0x1000, b"x").unwrap();
    let mut flush = Flush::new();
    table.protect(0x1000..0x2000, &mut flush, |_, _| Access::empty());
    assert_eq!(
        table.read(0x1000, &mut [0]),
        Err(Missing { address: 0x1000 })
    );
    table.protect(0x1000..0x2000, &mut flush, |_, _| Access::READ);
    let mut out = [0];
    table.read(0x1000, &mut out).unwrap();
    assert_eq!(&out, b"x");
    assert_eq!(table.write(0x1000, b"y"), Err(Missing { address: 0x1000 }));
    table.write(0x2000, b"y").unwrap();
}

#[test]
fn unmapping_and_dropping_free_the_frames() {
    let frame = Frame::zeroed().unwrap();
    let mut table = PageTable::new().unwrap();
    table.map(0x5000, frame.clone(), RW).unwrap();
    assert_eq!(
        table.map(0x5000, frame.clone(), RW),
        Err(MapError::Occupied)
    );
    // The refused reference was dropped.
    let mut flush = Flush::new();
    table.unmap(0..END, &mut flush);
    drop(flush);
    assert!(frame.is_unique());
    table.map(0x7fff_ffff_e000, frame.clone(), RW).unwrap();
    assert_eq!(
        table.map(0x7fff_ffff_f000, frame.clone(), RW),
        Err(MapError::BadAddress)
    );
    drop(table);
    assert!(frame.is_unique());
}

#[test]
fn few_mapped_pages_are_listed_and_many_are_not() {
    let mut table = table_with(0x1f_f000, 3, RW);
    let pages = table.mapped::<3>(0..END).unwrap();
    assert_eq!(pages[..], [0x1f_f000, 0x20_0000, 0x20_1000]);
    assert_eq!(table.mapped::<2>(0..END), None);
    assert_eq!(table.mapped::<2>(0..0x20_1000).unwrap().len(), 2);
}

#[test]
fn pages_move() {
    let mut table = table_with(0x10_0000, 3, RW);
    table.write(0x10_1000, b"moved").unwrap();
    let mut flush = Flush::new();
    table
        .relocate(0x10_0000..0x10_3000, 0x20_0000, &mut flush)
        .unwrap();
    let mut out = [0; 5];
    table.read(0x20_1000, &mut out).unwrap();
    assert_eq!(&out, b"moved");
    assert!(table.lookup(0x10_1000).is_none());
}
