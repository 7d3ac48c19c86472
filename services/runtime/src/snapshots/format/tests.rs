//! Everything that can be wrong with a snapshot's bytes is named, and nothing of it panics.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type State = (u64, BTreeMap<u64, String>, Vec<Option<u32>>);

fn meta() -> Meta {
    Meta {
        kind: "distributor".to_owned(),
        partition: Partition::new(7).expect("below 64"),
        sequence: 123_456_789,
        stream_created_micros: 1_700_000_000_000_000,
        format: 3,
    }
}
fn wanted() -> Wanted {
    Wanted {
        kind: "distributor".to_owned(),
        partition: Partition::new(7).expect("below 64"),
        stream_created_micros: 1_700_000_000_000_000,
        format: 3,
    }
}
fn state() -> State {
    let words = (0..50).map(|n| (n, format!("word {n}"))).collect();
    (9, words, vec![Some(1), None, Some(u32::MAX)])
}
/// A container whose hash holds around a body that nobody encoded.
fn sealed(meta: &Meta, content: &[u8]) -> Vec<u8> {
    let Header { mut bytes, body } = header(meta).expect("a header");
    bytes.extend(content);
    seal(&mut bytes, body);
    bytes
}

#[test]
fn what_is_encoded_is_read() {
    let bytes = encode(&meta(), &state()).expect("encoded");
    let (found, back) = decode::<State>(&wanted(), &bytes).expect("decoded");
    assert_eq!((found, back), (meta(), state()));
    assert_eq!(meta_of(&bytes).expect("whole"), meta());
}

#[test]
fn the_container_stays_as_it_is() {
    let bytes = encode(&meta(), &7u8).expect("encoded");
    let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(
        text,
        concat!(
            "535741524d534e50",
            "0100",
            "1a00",
            "0b6469737472696275746f72",
            "07",
            "959aef3a",
            "8080f28183898506",
            "03",
            "0100000000000000",
            "0aa01d4bbfa5aa9c68f17f7f6e8c6979b2daad3503b3c0df7db0df76dedf4cbe",
            "07"
        ),
        "a changed container needs a higher VERSION"
    );
}

#[test]
fn a_bound_is_kept_to_the_byte() {
    let whole = encode(&meta(), &state()).expect("encoded");
    assert_eq!(
        encode_bounded(&meta(), &state(), whole.len()).expect("fits"),
        whole
    );
    for bytes_max in [whole.len() - 1, 80, 10, 0] {
        let refused = encode_bounded(&meta(), &state(), bytes_max);
        assert!(
            matches!(refused, Err(EncodeError::TooLarge { bytes_max: told }) if told == bytes_max),
            "{bytes_max}"
        );
    }
}

/// Counts how much of itself was asked for.
struct Endless<'a>(&'a std::cell::Cell<u64>);
impl Serialize for Endless<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let counted = (0..1_000_000_000u64).inspect(|_| self.0.set(self.0.get() + 1));
        serializer.collect_seq(counted.map(|n| n % 100))
    }
}

#[test]
fn giving_up_costs_no_more_than_the_bound() {
    let asked = std::cell::Cell::new(0);
    let refused = encode_bounded(&meta(), &Endless(&asked), 10_000);
    assert!(matches!(refused, Err(EncodeError::TooLarge { .. })));
    assert!(asked.get() <= 10_000, "{}", asked.get());
}

#[test]
fn an_over_long_kind_is_refused() {
    let mut meta = meta();
    meta.kind = "k".repeat(META_BYTES_MAX);
    assert!(matches!(encode(&meta, &1), Err(EncodeError::Kind(_))));
}

#[test]
fn each_thing_that_is_wrong_has_its_own_words() {
    let good = encode(&meta(), &state()).expect("encoded");
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        bytes
    };
    let of = |meta: Meta| encode(&meta, &state()).expect("encoded");
    let mut longer = good.clone();
    longer.extend([1, 2, 3]);
    let mut trailing = postcard::to_stdvec(&state()).expect("encoded");
    trailing.push(0);
    let cases = [
        (Vec::new(), "does not begin as a snapshot"),
        (b"{\"json\": true}".to_vec(), "does not begin as a snapshot"),
        (changed(8, 2), "container has version 2"),
        (changed(11, 255), "header is damaged"),
        (good[..9].to_vec(), "1 bytes are missing"),
        (good[..good.len() - 1].to_vec(), "1 bytes are missing"),
        (longer, "3 bytes follow"),
        (changed(20, good[20] ^ 1), "SHA-256"),
        (changed(good.len() - 1, good[good.len() - 1] ^ 1), "SHA-256"),
        (
            of(Meta {
                kind: "health".to_owned(),
                ..meta()
            }),
            "of kind health, not distributor",
        ),
        (
            of(Meta {
                partition: Partition::new(8).expect("below 64"),
                ..meta()
            }),
            "of partition 08, not 07",
        ),
        (
            of(Meta {
                stream_created_micros: 5,
                ..meta()
            }),
            "of a log created at 5 µs",
        ),
        (
            of(Meta {
                format: 2,
                ..meta()
            }),
            "layout 2, and this program reads 3",
        ),
        (
            sealed(&meta(), &[255; 40]),
            "cannot be read, though its layout is 3",
        ),
        (sealed(&meta(), &trailing), "1 bytes follow"),
    ];
    for (bytes, words) in cases {
        let error = decode::<State>(&wanted(), &bytes).expect_err(words);
        assert!(
            error.to_string().contains(words),
            "{error} should say: {words}"
        );
    }
}

#[test]
fn a_partition_that_does_not_exist_is_damage() {
    let told = postcard::to_stdvec(&("distributor", 64u8, 1u64, 1i64, 1u32)).expect("encoded");
    assert!(read_meta(&told).is_none());
}

proptest! {
    /// Any damage in storage is found before the body is read.
    #[test]
    fn no_corruption_is_taken_for_a_snapshot(at in any::<prop::sample::Index>(), with in 1u8..) {
        let mut bytes = encode(&meta(), &state()).expect("encoded");
        let at = at.index(bytes.len());
        bytes[at] ^= with;
        prop_assert!(decode::<State>(&wanted(), &bytes).is_err());
    }

    #[test]
    fn no_prefix_is_taken_for_a_snapshot(end in any::<prop::sample::Index>()) {
        let bytes = encode(&meta(), &state()).expect("encoded");
        prop_assert!(decode::<State>(&wanted(), &bytes[..end.index(bytes.len())]).is_err());
    }

    #[test]
    fn any_bytes_are_refused_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut begun = MAGIC.to_vec();
        begun.extend(VERSION.to_le_bytes());
        begun.extend(&bytes);
        prop_assert!(decode::<State>(&wanted(), &bytes).is_err());
        prop_assert!(decode::<State>(&wanted(), &begun).is_err());
    }

    /// Even a body whose hash holds (a layout that changed without its number) leads to an error or to some state.
    #[test]
    fn a_body_of_another_layout_is_read_in_peace(content in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode::<State>(&wanted(), &sealed(&meta(), &content));
    }
}
