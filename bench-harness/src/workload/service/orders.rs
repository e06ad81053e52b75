//! What the services are about: an order comes in, a confirmation goes out, both about 1 KiB on the wire.
//!
//! The types are what a code generator makes of a `.proto` file, written by hand so that building needs no `protoc`. JSON has the same ones.
//! They hold what real messages hold: strings of all lengths, messages in messages, lists, lists of lists, a map. Maps are ordered: those that
//! hash answer in another order every time, and answers could not be compared.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::pool::Spares;
use crate::workload::Rng;

/// What a customer wants.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub(super) struct Order {
    /// Fixed in width and first, so that the client can change it in an encoded order.
    #[prost(fixed64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) reference: String,
    #[prost(message, optional, tag = "3")]
    pub(super) customer: Option<Customer>,
    #[prost(message, repeated, tag = "4")]
    pub(super) items: Vec<Item>,
    #[prost(btree_map = "string, string", tag = "5")]
    pub(super) attributes: BTreeMap<String, String>,
    #[prost(uint64, tag = "6")]
    pub(super) placed_ms: u64,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub(super) struct Customer {
    #[prost(uint64, tag = "1")]
    pub(super) id: u64,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) email: String,
    #[prost(message, optional, tag = "4")]
    pub(super) address: Option<Address>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub(super) struct Address {
    #[prost(string, tag = "1")]
    pub(super) street: String,
    #[prost(string, tag = "2")]
    pub(super) city: String,
    #[prost(string, tag = "3")]
    pub(super) postal_code: String,
    #[prost(string, tag = "4")]
    pub(super) country: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub(super) struct Item {
    #[prost(string, tag = "1")]
    pub(super) sku: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(uint32, tag = "3")]
    pub(super) quantity: u32,
    #[prost(uint64, tag = "4")]
    pub(super) unit_cents: u64,
    #[prost(string, repeated, tag = "5")]
    pub(super) tags: Vec<String>,
}

/// What the shop makes of it.
#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub(super) struct Confirmation {
    /// Fixed in width and first, as in the order.
    #[prost(fixed64, tag = "1")]
    pub(super) order_id: u64,
    #[prost(string, tag = "2")]
    pub(super) number: String,
    #[prost(string, tag = "3")]
    pub(super) reference: String,
    #[prost(string, tag = "4")]
    pub(super) recipient: String,
    #[prost(message, optional, tag = "5")]
    pub(super) ship_to: Option<Address>,
    #[prost(message, repeated, tag = "6")]
    pub(super) lines: Vec<Line>,
    #[prost(btree_map = "string, uint64", tag = "7")]
    pub(super) totals: BTreeMap<String, u64>,
    #[prost(string, tag = "8")]
    pub(super) promise: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize, Deserialize)]
pub(super) struct Line {
    #[prost(string, tag = "1")]
    pub(super) sku: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(uint32, tag = "3")]
    pub(super) quantity: u32,
    #[prost(uint64, tag = "4")]
    pub(super) unit_cents: u64,
    #[prost(uint64, tag = "5")]
    pub(super) discount_cents: u64,
    #[prost(uint64, tag = "6")]
    pub(super) total_cents: u64,
    #[prost(string, tag = "7")]
    pub(super) availability: String,
}

/// Why an order cannot be confirmed.
pub(super) type Refusal = &'static str;

/// What an item costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Price {
    pub(super) discount_cents: u64,
    pub(super) total_cents: u64,
}

impl Item {
    pub(super) fn price(&self) -> Price {
        let full = self.unit_cents.saturating_mul(u64::from(self.quantity));
        let percent = u64::from(self.quantity >= 10) * 10 + u64::from(self.tags.iter().any(|tag| tag == "sale")) * 15;
        let discount_cents = full / 100 * percent;
        Price { discount_cents, total_cents: full - discount_cents }
    }

    pub(super) fn availability(&self) -> &'static str {
        ["in stock", "in two days", "in stock", "on order"][self.sku.len() % 4]
    }
}

/// What is asked of an order: never more than borrowed, so that all variants of a service answer with the same words and figures.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quote<'a> {
    pub(super) order: &'a Order,
    pub(super) customer: &'a Customer,
    pub(super) ship_to: &'a Address,
    /// Net, shipping, tax, and all of it, in the order of their names.
    pub(super) totals: [(&'static str, u64); 4],
}

/// Letters of a confirmation's number.
pub(super) const NUMBER_LETTERS: usize = 18;

impl<'a> Quote<'a> {
    /// Of an order that has a customer with an address, and items.
    pub(super) fn of(order: &'a Order) -> Result<Self, Refusal> {
        // By a name, because messages that are used again have empty parts in place of missing ones.
        let customer = order.customer.as_ref().filter(|customer| !customer.name.is_empty()).ok_or("the order has no customer")?;
        let ship_to =
            customer.address.as_ref().filter(|address| !address.city.is_empty()).ok_or("the customer has no address")?;
        if order.items.is_empty() {
            return Err("the order has no items");
        }
        let net = order.items.iter().fold(0, |sum: u64, item| sum.saturating_add(item.price().total_cents));
        let shipping = if net > 10_000 { 0 } else { 490 };
        let tax = net / 100 * 19;
        let gross = net.saturating_add(shipping).saturating_add(tax);
        Ok(Self { order, customer, ship_to, totals: [("gross", gross), ("net", net), ("shipping", shipping), ("tax", tax)] })
    }

    /// Behind the letters `C-` in hexadecimal.
    pub(super) fn number(&self) -> u64 {
        hash(self.order.placed_ms, self.order.reference.as_bytes())
    }

    pub(super) fn promise(&self) -> &'static str {
        match self.ship_to.country.as_str() {
            "DE" | "NL" => "Leaves our warehouse today and is with you within two working days.",
            "FR" | "PT" => "Leaves our warehouse tomorrow and is with you within five working days.",
            _ => "We shall write to you as soon as your parcel has crossed the border.",
        }
    }
}

impl Confirmation {
    /// A confirmation that owns all that it says.
    pub(super) fn of(order: &Order) -> Result<Self, Refusal> {
        let mut confirmation = Self::default();
        confirmation.fill(&Quote::of(order)?, &mut Spares::default());
        Ok(confirmation)
    }

    /// Fills one that is empty. Strings that it needs come out of the spares while there are any.
    pub(super) fn fill(&mut self, quote: &Quote<'_>, spares: &mut Spares) {
        self.order_id = quote.order.id;
        // Writing to a string does not fail.
        let _ = write!(self.number, "C-{:016x}", quote.number());
        self.reference.push_str(&quote.order.reference);
        self.recipient.push_str(&quote.customer.name);
        let ship_to = self.ship_to.get_or_insert_default();
        ship_to.street.push_str(&quote.ship_to.street);
        ship_to.city.push_str(&quote.ship_to.city);
        ship_to.postal_code.push_str(&quote.ship_to.postal_code);
        ship_to.country.push_str(&quote.ship_to.country);
        for item in &quote.order.items {
            let mut line = spares.line();
            line.sku.push_str(&item.sku);
            line.description.push_str(&item.description);
            line.quantity = item.quantity;
            line.unit_cents = item.unit_cents;
            let price = item.price();
            line.discount_cents = price.discount_cents;
            line.total_cents = price.total_cents;
            line.availability.push_str(item.availability());
            self.lines.push(line);
        }
        for (name, cents) in quote.totals {
            let mut text = spares.text();
            text.push_str(name);
            self.totals.insert(text, cents);
        }
        self.promise.push_str(quote.promise());
    }
}

/// The client has so many orders in stock, and sends each again and again under another id.
pub(super) const STOCK: u64 = 1_000;
/// The id of the first request. All ids have ten digits, so that they fit each other's places in JSON, too.
pub(super) const FIRST_ID: u64 = 1_000_000_000;

impl Order {
    /// The one in this place of the stock.
    pub(super) fn of_stock(place: u64) -> Self {
        let mut rng = Rng::new(place);
        let name = format!("{} {}", pick(&mut rng, &FIRST_NAMES), pick(&mut rng, &LAST_NAMES));
        let email = format!("{}@{}.example", name.to_lowercase().replace(' ', "."), pick(&mut rng, &NOUNS));
        let address = Address {
            street: format!("{} {}", pick(&mut rng, &STREETS), rng.between(1, 240)),
            city: pick(&mut rng, &CITIES).to_owned(),
            postal_code: format!("{:05}", rng.between(10_000, 99_999)),
            country: pick(&mut rng, &COUNTRIES).to_owned(),
        };
        let items = (0..rng.between(8, 12)).map(|_| Item::random(&mut rng)).collect();
        let attributes = [("channel", "web"), ("currency", "EUR"), ("language", "en"), ("campaign", "autumn-clearance")];
        let attributes = attributes.iter().take(rng.between(2, 4)).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Self {
            id: FIRST_ID,
            reference: format!("PO-{:04}-{:06}", rng.between(1_900, 2_100), rng.below(1_000_000)),
            customer: Some(Customer { id: rng.number() >> 40, name, email, address: Some(address) }),
            items,
            attributes: attributes.collect(),
            placed_ms: 1_790_000_000_000 + (rng.number() >> 34),
        }
    }
}

impl Item {
    fn random(rng: &mut Rng) -> Self {
        let (adjective, material, noun) = (pick(rng, &ADJECTIVES), pick(rng, &MATERIALS), pick(rng, &NOUNS));
        let tags = (0..rng.between(0, 3)).map(|_| pick(rng, &TAGS).to_owned()).collect();
        Self {
            sku: format!("{}-{}", &noun[..3].to_uppercase(), rng.between(1_000, 9_999_999)),
            description: format!("{adjective} {noun} of {material}, model {}", rng.between(1, 4_000)),
            quantity: rng.between(1, 12) as u32,
            unit_cents: rng.between(49, 49_999) as u64,
            tags,
        }
    }
}

fn pick(rng: &mut Rng, words: &[&'static str]) -> &'static str {
    words[rng.below(words.len())]
}

const FIRST_NAMES: [&str; 8] = ["Ada", "Barbara", "Edsger", "Frances", "Grace", "Konrad", "Niklaus", "Ole-Johan"];
const LAST_NAMES: [&str; 8] = ["Allen", "Dahl", "Dijkstra", "Hopper", "Liskov", "Lovelace", "Wirth", "Zuse"];
const STREETS: [&str; 6] = ["Am Alten Bahnhof", "Keizersgracht", "Long Lane", "Rua da Bica", "Rue des Lilas", "Unter den Linden"];
const CITIES: [&str; 6] = ["Amsterdam", "Berlin", "Castrop-Rauxel", "Lisboa", "Lyon", "Stoke-on-Trent"];
const COUNTRIES: [&str; 5] = ["DE", "FR", "GB", "NL", "PT"];
const ADJECTIVES: [&str; 8] =
    ["Adjustable", "Dependable", "Foldable", "Hand-made", "Light", "Quiet", "Second-hand", "Weatherproof"];
const MATERIALS: [&str; 8] = ["anodised aluminium", "beech", "brass", "cotton", "linen", "oiled oak", "recycled glass", "steel"];
const NOUNS: [&str; 8] = ["bookshelf", "clock", "garden chair", "kettle", "lamp", "letter opener", "tablecloth", "workbench"];
const TAGS: [&str; 8] = ["bulky", "fragile", "gift", "new", "outdoor", "refurbished", "sale", "seasonal"];

/// A number that depends on all bytes, a word at a time. For sums over answers and for places in tables; nobody here is an adversary.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mix = |sum: u64, word: u64| {
        let product = u128::from((sum ^ word).wrapping_add(0xa076_1d64_78bd_642f)) * 0x9e37_79b9_7f4a_7c15;
        (product >> 64) as u64 ^ product as u64
    };
    let mut words = bytes.chunks_exact(8);
    let sum = words
        .by_ref()
        .fold(seed ^ bytes.len() as u64, |sum, word| mix(sum, u64::from_le_bytes(word.try_into().unwrap_or_default())));
    let rest = words.remainder().iter().fold(0, |rest, byte| rest << 8 | u64::from(*byte));
    mix(mix(sum, rest), 0x60be_e2be_e120_fc15)
}
