//! Messages that are used again, with all that belongs to them: strings, vectors, the messages in them.
//!
//! prost decodes into a message that is there already ([`Message::merge`]), and a string keeps its room meanwhile. But elements of lists are made
//! anew, and clearing a list drops them. So a [`Kit`] has spares beside its message: what a list loses when the message is emptied lies there until
//! the next one needs it.
//!
//! ```text
//!   take ──→ merge, spares → lists ──→ used, kept ──→ dropped: lists → spares ──→ back on the shelf
//! ```
//!
//! What is left to allocate for is the node of a map, and a message that is larger than all that its kit has held before.

use std::collections::BTreeMap;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Buf;
use prost::encoding::{DecodeContext, decode_key, merge_loop, string};
use prost::{DecodeError, Message};

use super::orders::{Address, Confirmation, Customer, Item, Line, Order};

/// Elements of lists that no list has at the moment. All of them are empty, with room.
#[derive(Debug, Default)]
pub(super) struct Spares {
    texts: Vec<String>,
    items: Vec<Item>,
    lines: Vec<Line>,
}

impl Spares {
    /// An empty string.
    pub(super) fn text(&mut self) -> String {
        self.texts.pop().unwrap_or_default()
    }

    /// An empty line.
    pub(super) fn line(&mut self) -> Line {
        self.lines.pop().unwrap_or_default()
    }

    fn keep(&mut self, mut text: String) {
        text.clear();
        self.texts.push(text);
    }
}

/// A message that can be emptied without giving back what it owns.
pub(super) trait Reuse: Message + Default {
    /// Nothing is in it behind this.
    fn empty(&mut self, spares: &mut Spares);
}

impl Reuse for Order {
    fn empty(&mut self, spares: &mut Spares) {
        // Named one by one, so that a new field is not forgotten.
        let Self { id, reference, customer, items, attributes, placed_ms } = self;
        (*id, *placed_ms) = (0, 0);
        reference.clear();
        if let Some(Customer { id, name, email, address }) = customer {
            *id = 0;
            name.clear();
            email.clear();
            empty_address(address.as_mut());
        }
        for mut item in items.drain(..) {
            let Item { sku, description, quantity, unit_cents, tags } = &mut item;
            (*quantity, *unit_cents) = (0, 0);
            sku.clear();
            description.clear();
            tags.drain(..).for_each(|tag| spares.keep(tag));
            spares.items.push(item);
        }
        for (name, value) in mem::take(attributes) {
            spares.keep(name);
            spares.keep(value);
        }
    }
}

impl Reuse for Confirmation {
    fn empty(&mut self, spares: &mut Spares) {
        let Self { order_id, number, reference, recipient, ship_to, lines, totals, promise } = self;
        *order_id = 0;
        for text in [number, reference, recipient, promise] {
            text.clear();
        }
        empty_address(ship_to.as_mut());
        for mut line in lines.drain(..) {
            // A line has no lists, so clearing it drops nothing.
            line.clear();
            spares.lines.push(line);
        }
        for (name, _) in mem::take(totals) {
            spares.keep(name);
        }
    }
}

fn empty_address(address: Option<&mut Address>) {
    if let Some(address) = address {
        address.clear();
    }
}

/// A message and its spares.
#[derive(Debug, Default)]
pub(super) struct Kit<M> {
    pub(super) message: M,
    pub(super) spares: Spares,
}

impl Kit<Order> {
    /// Decodes an order into the empty message. As prost does it, but for the elements of lists and maps.
    pub(super) fn merge(&mut self, buffer: &mut impl Buf) -> Result<(), DecodeError> {
        const ITEMS: u32 = 4;
        const ATTRIBUTES: u32 = 5;
        let Self { message, spares } = self;
        let context = DecodeContext::default();
        while buffer.has_remaining() {
            let (tag, wire_type) = decode_key(buffer)?;
            match tag {
                ITEMS => {
                    let mut item = spares.items.pop().unwrap_or_default();
                    merge_item(&mut item, spares, buffer, context.clone())?;
                    message.items.push(item);
                }
                ATTRIBUTES => merge_attribute(&mut message.attributes, spares, buffer, context.clone())?,
                _ => message.merge_field(tag, wire_type, buffer, context.clone())?,
            }
        }
        Ok(())
    }
}

fn merge_item(item: &mut Item, spares: &mut Spares, buffer: &mut impl Buf, context: DecodeContext) -> Result<(), DecodeError> {
    const TAGS: u32 = 5;
    merge_loop(item, buffer, context, |item, buffer, context| {
        let (tag, wire_type) = decode_key(buffer)?;
        if tag != TAGS {
            return item.merge_field(tag, wire_type, buffer, context);
        }
        let mut text = spares.text();
        string::merge(wire_type, &mut text, buffer, context)?;
        item.tags.push(text);
        Ok(())
    })
}

fn merge_attribute(
    attributes: &mut BTreeMap<String, String>,
    spares: &mut Spares,
    buffer: &mut impl Buf,
    context: DecodeContext,
) -> Result<(), DecodeError> {
    let mut entry = (spares.text(), spares.text());
    merge_loop(&mut entry, buffer, context, |(name, value), buffer, context| {
        let (tag, wire_type) = decode_key(buffer)?;
        match tag {
            1 => string::merge(wire_type, name, buffer, context),
            2 => string::merge(wire_type, value, buffer, context),
            _ => prost::encoding::skip_field(wire_type, tag, buffer, context),
        }
    })?;
    attributes.insert(entry.0, entry.1);
    Ok(())
}

/// Kits that nobody uses at the moment.
#[derive(Debug)]
pub(super) struct Shelf<M> {
    kits: Mutex<Vec<Kit<M>>>,
}

impl<M: Reuse> Shelf<M> {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { kits: Mutex::new(Vec::new()) })
    }

    /// An empty message, from the shelf while there is one.
    pub(super) fn take(self: &Arc<Self>) -> Pooled<M> {
        let kit = self.kits.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Pooled { kit: kit.unwrap_or_default(), shelf: Arc::clone(self) }
    }
}

/// A kit that returns to its shelf when it is dropped. As many as were ever used at once end up there.
#[derive(Debug)]
pub(super) struct Pooled<M: Reuse> {
    kit: Kit<M>,
    shelf: Arc<Shelf<M>>,
}

impl<M: Reuse> Deref for Pooled<M> {
    type Target = Kit<M>;

    fn deref(&self) -> &Kit<M> {
        &self.kit
    }
}

impl<M: Reuse> DerefMut for Pooled<M> {
    fn deref_mut(&mut self) -> &mut Kit<M> {
        &mut self.kit
    }
}

impl<M: Reuse> Drop for Pooled<M> {
    fn drop(&mut self) {
        let Kit { message, spares } = &mut self.kit;
        message.empty(spares);
        let kit = mem::take(&mut self.kit);
        self.shelf.kits.lock().unwrap_or_else(PoisonError::into_inner).push(kit);
    }
}
