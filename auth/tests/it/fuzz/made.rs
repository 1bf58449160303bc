//! Messages that are made from their description.

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value, prost::Message as _,
};

/// How deep messages are filled.
const DEPTH_MAX: usize = 4;

/// Texts that mean something somewhere, and some that must mean nothing anywhere.
const TEXTS: [&str; 28] = [
    "",
    "a",
    "alice",
    "eve",
    "orders",
    "access",
    "editor",
    "default",
    "db",
    "discovery",
    "prod",
    "*",
    "^(a+)+$",
    "^[",
    "name",
    "labels.env desc",
    "labels[\"env\"] == \"prod\"",
    "((((((((((((((((((((((((((((((((true",
    "redshift",
    "us-east-1",
    "arn:aws:iam::111122223333:role/x",
    "../../etc/passwd",
    "a/b|c",
    "\u{0}\u{7}\u{1b}[31m",
    "ünïcödé \u{202e}",
    "localhost:5432",
    "2026-11-22T00:00:00Z",
    "user",
];

/// A row of numbers that looks like chance and is the same for the same seed (splitmix64).
pub(super) struct Dice(u64);

impl Dice {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Less than `bound`.
    pub(super) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Once in so many times.
    pub(super) const fn chance(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    #[allow(clippy::cast_possible_truncation, reason = "less than a length")]
    const fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}

/// A message of this sort, encoded.
pub(super) fn message(dice: &mut Dice, of: &MessageDescriptor) -> Vec<u8> {
    filled(dice, of, 0).encode_to_vec()
}

fn filled(dice: &mut Dice, of: &MessageDescriptor, depth: usize) -> DynamicMessage {
    let mut message = DynamicMessage::new(of.clone());
    for field in of.fields() {
        // Fields are mostly there, so that what is behind the first check is reached too.
        if !dice.chance(5) && (depth < DEPTH_MAX || !is_message(&field)) {
            let value = value(dice, &field, depth);
            message.set_field(&field, value);
        }
    }
    message
}

fn is_message(field: &FieldDescriptor) -> bool {
    matches!(field.kind(), Kind::Message(_))
}

fn value(dice: &mut Dice, field: &FieldDescriptor, depth: usize) -> Value {
    if field.is_map() {
        return map(dice, field, depth);
    }
    if field.is_list() {
        let count = if dice.chance(20) { 300 } else { dice.below(4) };
        let values = (0..count).map(|_| single(dice, &field.kind(), depth));
        return Value::List(values.collect());
    }
    single(dice, &field.kind(), depth)
}

fn map(dice: &mut Dice, field: &FieldDescriptor, depth: usize) -> Value {
    let Kind::Message(entry) = field.kind() else {
        unreachable!("maps are lists of entries");
    };
    let of = entry.map_entry_value_field().kind();
    let count = dice.below(4);
    let pairs = (0..count).map(|_| (MapKey::String(text(dice)), single(dice, &of, depth)));
    Value::Map(pairs.collect())
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "any number will do"
)]
fn single(dice: &mut Dice, kind: &Kind, depth: usize) -> Value {
    match kind {
        Kind::Bool => Value::Bool(dice.chance(2)),
        Kind::String => Value::String(text(dice)),
        Kind::Bytes => {
            let length = dice.below(100);
            let bytes: Vec<u8> = (0..length).map(|_| dice.next() as u8).collect();
            Value::Bytes(bytes.into())
        }
        Kind::Double => Value::F64(f64::from_bits(dice.next())),
        Kind::Float => Value::F32(f32::from_bits(dice.next() as u32)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(number(dice) as i32),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(number(dice) as i64),
        Kind::Uint32 | Kind::Fixed32 => Value::U32(number(dice) as u32),
        Kind::Uint64 | Kind::Fixed64 => Value::U64(number(dice)),
        Kind::Enum(of) => {
            let known = of.values().count();
            let number = dice.index(known + 2);
            let number = i32::try_from(number).unwrap_or(0);
            Value::EnumNumber(if dice.chance(10) { -1 } else { number })
        }
        Kind::Message(of) => Value::Message(filled(dice, of, depth + 1)),
    }
}

fn number(dice: &mut Dice) -> u64 {
    match dice.below(6) {
        0 => 0,
        1 => 1,
        2 => dice.below(100),
        3 => u64::MAX,
        4 => i64::MIN.unsigned_abs(),
        _ => dice.next(),
    }
}

fn text(dice: &mut Dice) -> String {
    match dice.below(20) {
        0 => TEXTS[dice.index(TEXTS.len())].repeat(2000),
        1 => {
            let length = dice.below(12);
            (0..length)
                .filter_map(|_| char::from_u32(u32::try_from(dice.below(0x3000)).ok()?))
                .collect()
        }
        _ => TEXTS[dice.index(TEXTS.len())].to_owned(),
    }
}

/// A message whose bytes were damaged.
#[allow(clippy::cast_possible_truncation, reason = "any byte will do")]
pub(super) fn damaged(dice: &mut Dice, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..=dice.below(3) {
        let place = dice.index(bytes.len() + 1);
        match dice.below(4) {
            0 => bytes.truncate(place),
            1 => bytes.insert(place, dice.next() as u8),
            2 => {
                let more = dice.below(20);
                let more: Vec<u8> = (0..more).map(|_| dice.next() as u8).collect();
                bytes.extend(more);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << dice.below(8);
                }
            }
        }
    }
    bytes
}
