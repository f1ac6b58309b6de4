//! Batches as Kafka's clients compress them are read, and what is written reads back, in every codec.

use super::*;
use crate::batch::header::{BatchHeader, HEADER_BYTES};
use crate::batch::record::Records;

// Made with kafka-python 3.0.12 (lz4 4.4.5, zstandard 0.25.0, python-snappy 0.7.3): DefaultRecordBatchBuilder(magic=2,
// compression_type, is_transactional=False, -1, -1, -1, batch_size=1 << 20), then for i in range(40):
// append(i, 1_700_000_000_000 + i, b"key-%d" % (i % 5), b"the same value, %d times over" % i, [("h", b"x")] if i % 2 else []).
const GZIP: &str = "\
    00000000000000000000018d0000000002b4781ca50001000000270000018bcfe568000000018bcfe56827ffffffffffffff\
    ffffffffffffff000000281f8b08008e8b016b02ff75d1416bc2401086e1258848101111111159444424956437c634888888\
    8848e8a9f4ea61c1d24aa15aa9ffbe905cba33fbdd870f9e79732184ff611e4f617a3b1b793d5d8cbc9f3e7f4c2043797bbf\
    98abfcba9b6ff12a3cafb88bd85df4efcef3cede6f2e2a95e256b15b656f56abc59d66779a6fd66ac56dcc6e637bd3f78167\
    ce37eb75604aeccd460378167cb3d904a6d4de6cb580e7996ebe8876bb3465ecf756a437d1e994207e18f1d56eb754f16365\
    aff67a25891f6abedaef972e7e1cdbab830142cdf9aa940896d8abc321422df8ea688460a9bd3a1e2394a3d66402608ad49a\
    4e014a396a05018029526b360328e5a8158600a6482da510ca512b8e118cd44a128472d44a530423b5b20ca11cb5964b00d3\
    a4d66a0550da516bbd06304d6a6d3600a51db5b65b00d3a4d66e87508e5afb3d82915a870342396a1d8f08466ae53942b15a\
    7fe972d4e7ae060000";
const SNAPPY: &str = "\
    000000000000000000000280000000000291e1d00b0002000000270000018bcfe568000000018bcfe56827ffffffffffffff\
    ffffffffffffff0000002882534e415050590000000001000000010000023bae0db04e0000000a6b65792d30387468652073\
    616d652076616c75652c20302074696d6573206f76657200560002020a0128003142280000311d282002026802784e000404\
    05540032422c0000321d2c1000560006060528003342280000331d280d54040808052c0034422c0000341d2c100056000a0a\
    052846d00000351d280d54040c0c052c46d40000361d2c100056000e0e052846d00000371d280d54041010052c46d4000038\
    1d2c100056001212052846d00000391d2805540c50001414052c04303a3ea401003132a5010c580016160529003146290042\
    a6010c50001818052d0032462d0032a7010c58001a1a0529003346290042a8010c50001c1c052d0034462d0032a9010c5800\
    1e1e05294ad50042aa010c50002020052d4ad90032ab010c5800222205294ad50042ac010c50002424052d4ad90032ad010c\
    5800262605294ad5004aae01042828052d46d90000323aae01042a2a052946d50000324aae01042c2c052d46d90000323aae\
    01042e2e052946d50000324aae01043030052d46d90000323aae0104323205294ad5004aae01043434052d4ad9003aae0104\
    363605294ad5004aae01043838052d4ad9003aae01043a3a05294ad5004aae01043c3c052d46d90000333aae01043e3e0529\
    46d50000334aae01044040052d46d90000333aae01044242052946d50000334aae01044444052d46d90000333aae01044646\
    05294ad5004aae01044848052d4ad9003aae01044a4a05294ad5004aae01044c4c052d4ad9003aae01044e4e05294ad50042\
    ae01";
const LZ4: &str = "\
    00000000000000000000029000000000028c50a3f20003000000270000018bcfe568000000018bcfe56827ffffffffffffff\
    ffffffffffffff0000002804224d186840ae06000000000000e748020000f11d4e0000000a6b65792d30387468652073616d\
    652076616c75652c20302074696d6573206f766572005600020228001d312800173128009102026802784e0004042c001d32\
    2c0017322c0051005600060628001d332800173328000354002108082c001d342c0017342c00510056000a0a28000ed00017\
    352800035400210c0c2c000ed40017362c00510056000e0e28000ed000173728000354002110102c000ed40017382c005100\
    5600121228000ed0001739280001540041500014142c002c303aa4011931a501415800161629001e3129000da60141500018\
    182d001e322d0009a7014158001a1a29001e3329000da8014150001c1c2d001e342d0009a9014158001e1e29000fd500000d\
    aa0141500020202d000fd9000009ab01415800222229000fd500000dac0141500024242d000fd9000009ad01415800262629\
    000fd500000fae01002128282d000ed9001b32ae01212a2a29000ed5001f32ae0100212c2c2d000ed9001b32ae01212e2e29\
    000ed5001f32ae01002130302d000ed9001b32ae0121323229000fd500000fae01002134342d000fd900000bae0121363629\
    000fd500000fae01002138382d000fd900000bae01213a3a29000fd500000fae0100213c3c2d000ed9001b33ae01213e3e29\
    000ed5001f33ae01002140402d000ed9001b33ae0121424229000ed5001f33ae01002144442d000ed9001b33ae0121464629\
    000fd500000fae01002148482d000fd900000bae01214a4a29000fd500000fae0100214c4c2d000fd900000bae01214e4e29\
    000fd5000008ae0150020268027800000000";
const ZSTD: &str = "\
    000000000000000000000160000000000207e8f2bf0004000000270000018bcfe568000000018bcfe56827ffffffffffffff\
    ffffffffffffff0000002828b52ffd60ae052d0900020d2d240029370703f83120df12f848ddb4adfdff7f9276835b8ac94b\
    dadeb46ddbf62467b649019c650c02f1e7c31e0f773acce1f066c31a0d67328cc16cf762d85ed742b8bbfbde5e2e6b596bb1\
    6ca5a24da15c6a4f268fda12c9a5b6738fda91c8a53604f2a8fd785c6a3b1c8fdd685c6a3f06e371002e16182b14029b485c\
    8a4004bcaa82f0706036181efa2e453d5368a3d6545b7be808f374e04a93446072cf5933c140747293242ab93932610f6061\
    1654ffb362a82198369c69ff0cc033521c11741c223802649ca3e4c20f57cf7f25df483663f946b219cb3792cd58be916cc6\
    8ec7fea00e6c4d6aaf11d2e40a228dd69ed461ad496d35429a5441a4a1523bd78c0aa99e05a05870008098e00000b1139c17\
    115a6edd14747b17014db8ae5605";

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |d: u8| (d as char).to_digit(16).unwrap() as u8;
    hex.as_bytes()
        .chunks(2)
        .map(|pair| digit(pair[0]) << 4 | digit(pair[1]))
        .collect()
}

fn inflate(codec: Compression, data: &[u8], limit: usize) -> Result<(Inflated, Vec<u8>), Defect> {
    let mut out = b"before".to_vec();
    let result = codec.decompress(data, &mut out, limit);
    assert!(out.starts_with(b"before"));
    if result != Ok(Inflated::Whole) {
        assert_eq!(out.len(), 6, "nothing is added unless it is all there");
    }
    Ok((result?, out.split_off(6)))
}

fn deflate(codec: Compression, data: &[u8]) -> Vec<u8> {
    let mut out = b"before".to_vec();
    codec.compress(data, &mut out).unwrap();
    assert!(out.starts_with(b"before"));
    out.split_off(6)
}

#[test]
fn batches_of_another_implementation_are_read() {
    for (hex, codec) in [
        (GZIP, Compression::Gzip),
        (SNAPPY, Compression::Snappy),
        (LZ4, Compression::Lz4),
        (ZSTD, Compression::Zstd),
    ] {
        let batch = bytes(hex);
        let header = BatchHeader::check(&batch, Some(0)).unwrap();
        assert_eq!(Compression::from_bits(header.attributes & 7), Ok(codec));
        let (whole, records) = inflate(codec, &batch[HEADER_BYTES..], 1 << 20).unwrap();
        assert_eq!(whole, Inflated::Whole);
        let records = Records::new(&records, header.count, 0, header.base_timestamp, None);
        assert_eq!(records.clone().validate(header.last_offset(), 0), Ok(40));
        let mut count = 0;
        for (i, record) in records.enumerate() {
            assert_eq!(record.timestamp, 1_700_000_000_000 + i as i64);
            assert_eq!(record.key, Some(format!("key-{}", i % 5).as_bytes()));
            let value = format!("the same value, {i} times over");
            assert_eq!(record.value, Some(value.as_bytes()));
            let headers: Vec<_> = record.headers().collect();
            assert_eq!(headers, [("h", Some(&b"x"[..]))][..i % 2]);
            count += 1;
        }
        assert_eq!(count, 40, "{codec}");
    }
}

#[test]
fn any_length_comes_back() {
    let mut random = fastrand::Rng::with_seed(7);
    for codec in Compression::ALL {
        for length in [
            1,
            2,
            100,
            (32 << 10) - 1,
            32 << 10,
            (32 << 10) + 1,
            64 << 10,
            300_000,
        ] {
            for noise in [false, true] {
                let byte = |i: usize| if noise { random.u8(..) } else { (i / 50) as u8 };
                let data: Vec<u8> = (0..length).map(byte).collect();
                let packed = deflate(codec, &data);
                let back = inflate(codec, &packed, length).unwrap();
                assert!(back == (Inflated::Whole, data), "{codec} of {length} bytes");
            }
        }
    }
}

#[test]
fn a_raw_snappy_block_and_members_in_a_row_are_read() {
    let raw = snap::raw::Encoder::new().compress_vec(b"one raw block").unwrap();
    assert_eq!(
        inflate(Compression::Snappy, &raw, 100).unwrap().1,
        b"one raw block"
    );
    for codec in [Compression::Gzip, Compression::Zstd] {
        let mut two = deflate(codec, b"first ");
        two.extend(deflate(codec, b"second"));
        assert_eq!(inflate(codec, &two, 100).unwrap().1, b"first second", "{codec}");
    }
}

/// Bytes that unpack to far more are given up at the limit, and cost no more memory than that.
#[test]
fn a_bomb_does_not_go_off() {
    let zeros = vec![0; 8 << 20];
    for codec in Compression::ALL {
        let bomb = deflate(codec, &zeros);
        let mut out = Vec::new();
        let limit = 100_000;
        assert_eq!(
            codec.decompress(&bomb, &mut out, limit),
            Ok(Inflated::OverLimit),
            "{codec}"
        );
        assert!(
            out.is_empty() && out.capacity() < 4 * limit,
            "{codec}: {}",
            out.capacity()
        );
        assert_eq!(
            inflate(codec, &bomb, zeros.len()).unwrap().0,
            Inflated::Whole,
            "{codec}"
        );
        assert_eq!(
            inflate(codec, &bomb, zeros.len() - 1).unwrap().0,
            Inflated::OverLimit,
            "{codec}"
        );
    }
    // A length of 4 GiB claimed in six bytes.
    let lie = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
    assert_eq!(
        inflate(Compression::Snappy, &lie, usize::MAX),
        Err(Defect::Decompress)
    );
    // A Zstandard frame that does not tell its size beforehand.
    let mut streamed = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    streamed.write_all(&zeros).unwrap();
    let streamed = streamed.finish().unwrap();
    assert!(matches!(zstd_safe::get_frame_content_size(&streamed), Ok(None)));
    let mut out = Vec::new();
    assert_eq!(
        Compression::Zstd.decompress(&streamed, &mut out, 100_000),
        Ok(Inflated::OverLimit)
    );
    assert!(out.capacity() < 1 << 20, "{}", out.capacity());
    assert_eq!(
        inflate(Compression::Zstd, &streamed, zeros.len()).unwrap().1,
        zeros
    );
}

/// Whatever the bytes, the answer is an error or data, never a panic; and the next batch is read as ever.
#[test]
fn damaged_bytes_are_an_error() {
    let data: Vec<u8> = (0..5_000_u32).flat_map(|i| (i / 7).to_le_bytes()).collect();
    let mut random = fastrand::Rng::with_seed(3);
    for codec in [
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let good = deflate(codec, &data);
        for cut in [good.len() - 1, good.len() / 2, 12, 3] {
            match inflate(codec, &good[..cut], 1 << 20) {
                Err(e) => assert_eq!(e, Defect::Decompress),
                // The frame decoder takes an end without end mark; the CRC and the record count tell.
                Ok((_, out)) => assert!(
                    codec == Compression::Lz4 && data.starts_with(&out),
                    "{codec} {cut}"
                ),
            }
        }
        for _ in 0..300 {
            let mut bad = good.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bad.len());
                bad[at] = random.u8(..);
            }
            let _ = inflate(codec, &bad, 1 << 20);
        }
        assert!(inflate(codec, &good, 1 << 20).unwrap().1 == data, "{codec}");
    }
}

#[test]
fn names_and_codes_are_kafkas() {
    for (bits, name) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        let codec: Compression = name.parse().unwrap();
        assert_eq!((codec.bits(), codec.to_string()), (bits, name.to_owned()));
        assert_eq!(Compression::from_bits(bits), Ok(codec));
    }
    assert_eq!(Compression::from_bits(5), Err(Defect::Compression(5)));
    let error = "LZ5".parse::<Compression>().unwrap_err().to_string();
    assert!(error.contains("LZ5") && error.contains("snappy"), "{error}");
}
