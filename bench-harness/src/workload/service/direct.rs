//! A confirmation straight onto the wire: field by field from what the order holds, without a message that owns its parts.
//!
//! A part's length stands before the part, so everything is measured before it is written. The bytes are those that prost writes for
//! [`Confirmation`](super::orders::Confirmation), to the last one; fields that hold nothing are left out, as there.

use bytes::BufMut;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::orders::{Item, NUMBER_LETTERS, Quote};

/// How long the confirmation is.
pub(super) fn encoded_len(quote: &Quote<'_>) -> usize {
    let lines = quote.order.items.iter().map(|item| part_len(6, line_len(item)));
    let totals = quote.totals.iter().map(|(name, cents)| part_len(7, text_len(1, name) + number_len(2, *cents)));
    let id = if quote.order.id == 0 { 0 } else { key_len(1) + 8 };
    id + part_len(2, NUMBER_LETTERS)
        + text_len(3, &quote.order.reference)
        + text_len(4, &quote.customer.name)
        + part_len(5, quote.ship_to.encoded_len())
        + lines.sum::<usize>()
        + totals.sum::<usize>()
        + text_len(8, quote.promise())
}

/// Writes it; there has to be room.
pub(super) fn encode(quote: &Quote<'_>, buffer: &mut impl BufMut) {
    if quote.order.id != 0 {
        encode_key(1, WireType::SixtyFourBit, buffer);
        buffer.put_u64_le(quote.order.id);
    }
    put_part(2, NUMBER_LETTERS, buffer);
    buffer.put_slice(&number_letters(quote.number()));
    put_text(3, &quote.order.reference, buffer);
    put_text(4, &quote.customer.name, buffer);
    put_part(5, quote.ship_to.encoded_len(), buffer);
    quote.ship_to.encode_raw(buffer);
    for item in &quote.order.items {
        put_part(6, line_len(item), buffer);
        put_line(item, buffer);
    }
    for (name, cents) in quote.totals {
        put_part(7, text_len(1, name) + number_len(2, cents), buffer);
        put_text(1, name, buffer);
        put_number(2, cents, buffer);
    }
    put_text(8, quote.promise(), buffer);
}

fn line_len(item: &Item) -> usize {
    let price = item.price();
    text_len(1, &item.sku)
        + text_len(2, &item.description)
        + number_len(3, u64::from(item.quantity))
        + number_len(4, item.unit_cents)
        + number_len(5, price.discount_cents)
        + number_len(6, price.total_cents)
        + text_len(7, item.availability())
}

fn put_line(item: &Item, buffer: &mut impl BufMut) {
    let price = item.price();
    put_text(1, &item.sku, buffer);
    put_text(2, &item.description, buffer);
    put_number(3, u64::from(item.quantity), buffer);
    put_number(4, item.unit_cents, buffer);
    put_number(5, price.discount_cents, buffer);
    put_number(6, price.total_cents, buffer);
    put_text(7, item.availability(), buffer);
}

/// `C-` and sixteen hexadecimal digits.
fn number_letters(number: u64) -> [u8; NUMBER_LETTERS] {
    let mut letters = [0; NUMBER_LETTERS];
    letters[..2].copy_from_slice(b"C-");
    for (place, letter) in letters[2..].iter_mut().enumerate() {
        *letter = b"0123456789abcdef"[(number >> (60 - 4 * place)) as usize & 15];
    }
    letters
}

fn part_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn put_part(tag: u32, length: usize, buffer: &mut impl BufMut) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn text_len(tag: u32, text: &str) -> usize {
    if text.is_empty() { 0 } else { part_len(tag, text.len()) }
}

fn put_text(tag: u32, text: &str, buffer: &mut impl BufMut) {
    if !text.is_empty() {
        put_part(tag, text.len(), buffer);
        buffer.put_slice(text.as_bytes());
    }
}

fn number_len(tag: u32, number: u64) -> usize {
    if number == 0 { 0 } else { key_len(tag) + encoded_len_varint(number) }
}

fn put_number(tag: u32, number: u64, buffer: &mut impl BufMut) {
    if number != 0 {
        encode_key(tag, WireType::Varint, buffer);
        encode_varint(number, buffer);
    }
}
