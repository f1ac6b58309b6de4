//! Batches and indexes of segments.

use super::*;

#[tokio::test]
async fn every_bit_of_a_batch_header_on_disk_is_reported_and_never_cut() {
    let left = Left::new(0).await;
    let segments = left.segments();
    // In a closed segment, and in the one that is written to.
    for (which, nth) in [(1, 2), (segments.len() - 1, 1)] {
        let path = &segments[which];
        let (at, first) = (left.position(path, nth), Left::base(path) + nth);
        let after = segments
            .get(which + 1)
            .map_or(left.values.len(), |next| Left::base(next));
        let size = left.disk.size(path).unwrap();
        for bit in 0..HEADER_BYTES * 8 {
            let disk = left.disk.copy();
            flip(&disk, path, at * 8 + bit);
            let broker = open(&disk).unwrap();
            assert!(
                broker.recovery().is_clean(),
                "bit {bit}: it is not read when opening"
            );
            let (before, error) = read(&broker, Start::Earliest);
            assert_eq!(before, left.values[..first], "bit {bit}");
            let Some(Error::Corrupt {
                path: found, offset, ..
            }) = &error
            else {
                panic!("bit {bit}: {error:?}")
            };
            assert_eq!((found, *offset), (path, first as u64), "bit {bit}");
            // It is set apart as a whole; all others are read and written.
            let (none, again) = read(&broker, Left::base(path) as u64);
            assert!(
                none.is_empty() && matches!(again, Some(Error::Corrupt { .. })),
                "bit {bit}: {again:?}"
            );
            assert_eq!(read(&broker, after as u64).0, left.values[after..], "bit {bit}");
            let next = broker.append("t", 0, one("next")).await.unwrap();
            assert_eq!(next, left.values.len() as u64, "bit {bit}");
            assert!(disk.size(path).unwrap() >= size, "bit {bit}");
        }
    }
}

#[tokio::test]
async fn every_bit_of_a_batch_header_behind_the_checkpoint_is_a_torn_tail() {
    let left = Left::new(3).await;
    let path = left.segments().pop().unwrap();
    let first = left.values.len() - 2;
    let nth = first - Left::base(&path);
    let (at, size) = (left.position(&path, nth), left.disk.size(&path).unwrap());
    for bit in 0..HEADER_BYTES * 8 {
        let disk = left.disk.copy();
        flip(&disk, &path, at * 8 + bit);
        let broker = open(&disk).unwrap();
        let found = actions(&broker);
        let [
            RecoveryAction::TailCut {
                file,
                position,
                bytes,
                offset,
                ..
            },
        ] = &found[..]
        else {
            panic!("bit {bit}: {found:?}")
        };
        assert_eq!(
            (file, *position, *bytes, *offset),
            (&path, at as u64, size - at as u64, first as u64),
            "bit {bit}"
        );
        assert_eq!(
            broker.append("t", 0, one("next")).await.unwrap(),
            first as u64,
            "bit {bit}"
        );
        drop(broker);
        let broker = open(&disk).unwrap();
        assert!(broker.recovery().is_clean(), "bit {bit}");
        let mut expected = left.values[..first].to_vec();
        expected.push("next".to_owned());
        assert_eq!(all(&broker), expected, "bit {bit}");
    }
}

#[tokio::test]
async fn an_index_of_any_length_of_before_or_of_another_segment_changes_nothing() {
    let left = Left::new(0).await;
    // Before the last segments were written.
    let indexes = left.files("index");
    let (closed, active) = (&indexes[1], indexes.last().unwrap());
    let all = left.disk.files();
    for path in [closed, active] {
        let good = &all[path];
        let mut contents: Vec<Vec<u8>> = (0..good.len()).map(|length| good[..length].to_vec()).collect();
        contents.push(all[&indexes[0]].clone());
        contents.push(all[&indexes[2]].clone());
        contents.push(vec![0; good.len()]);
        contents.push([good.clone(), good.clone()].concat());
        contents.extend((0..good.len() * 8).map(|bit| {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        }));
        for (which, bytes) in contents.into_iter().enumerate() {
            let disk = left.disk.copy();
            disk.change(path, |content| *content = bytes);
            let broker = open(&disk).unwrap();
            assert!(broker.recovery().is_clean());
            let last = left.values.len() - 1;
            for offset in [Left::base(path), last.min(Left::base(path) + 4), last] {
                let mut reader = broker
                    .reader("t", 0, offset as u64, Isolation::ReadCommitted)
                    .unwrap();
                let fetched = reader.try_next(1).unwrap().unwrap();
                let record = fetched.records().next().unwrap();
                assert_eq!(
                    (record.offset, text(record.value)),
                    (offset as u64, left.values[offset].clone()),
                    "content {which} of {}",
                    path.display()
                );
            }
            assert_eq!(broker.offset_for_time("t", 0, 1).await.unwrap(), Some(0));
            assert_eq!(
                broker.append("t", 0, one("next")).await.unwrap(),
                left.values.len() as u64
            );
        }
    }
}
