//! Sample orders and the stock that covers them, from a seed: the same seed, the same orders.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::settings::Warehouse;

const SKUS: [&str; 24] = [
    "TSHIRT-BLK-S",
    "TSHIRT-BLK-M",
    "TSHIRT-BLK-L",
    "TSHIRT-WHT-M",
    "HOODIE-GRY-M",
    "HOODIE-NVY-L",
    "JEANS-32-32",
    "JEANS-34-32",
    "SNEAKER-WHT-9",
    "SNEAKER-BLK-10",
    "BOOT-BRN-9",
    "SOCKS-3PK",
    "MUG-ENAMEL",
    "MUG-TRAVEL",
    "BOTTLE-750",
    "LAMP-DESK",
    "CABLE-USBC-2M",
    "CHARGER-65W",
    "HEADSET-BT",
    "KEYBOARD-US",
    "NOTEBOOK-A5",
    "PEN-GEL-BLK",
    "BACKPACK-22L",
    "TENT-2P",
];
const NAMES: [&str; 12] = [
    "Amara Okafor",
    "Ben Carter",
    "Chloé Martin",
    "Diego Ramírez",
    "Elif Yılmaz",
    "Farah Khan",
    "Grace Liu",
    "Henrik Sørensen",
    "Isla Murphy",
    "Jun Takahashi",
    "Katarzyna Nowak",
    "Luis Ortega",
];
const STREETS: [&str; 8] =
    ["Peachtree St NE", "Main St", "Elm St", "Market St", "Oak Ave", "2nd Ave", "Lakeview Dr", "Mill Rd"];
/// City, region, postal code.
const CITIES: [(&str, &str, &str); 10] = [
    ("Atlanta", "GA", "30303"),
    ("Nashville", "TN", "37203"),
    ("Charlotte", "NC", "28202"),
    ("Dallas", "TX", "75201"),
    ("Austin", "TX", "78701"),
    ("Chicago", "IL", "60601"),
    ("Reno", "NV", "89501"),
    ("Portland", "OR", "97205"),
    ("Seattle", "WA", "98101"),
    ("Denver", "CO", "80202"),
];

/// Orders and the receipts that must come before them.
pub(super) struct Sample {
    /// Bodies of `POST /v1/inventory/moves`.
    pub(super) receipts: Vec<Value>,
    /// Bodies of `POST /v1/orders`.
    pub(super) orders: Vec<Value>,
}

impl Sample {
    /// Makes `count` orders for the warehouses. Every unit that they ask for is in the receipts, in
    /// each warehouse that may get the order, so that all can ship under every policy.
    pub(super) fn new(seed: u64, count: usize, warehouses: &[Warehouse]) -> Sample {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stock: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let orders = (1..=count).map(|n| order(&mut rng, n, warehouses, &mut stock)).collect();
        let receipts =
            stock.into_iter().flat_map(|((code, sku), units)| receipts(code, sku, units)).collect();
        Sample { receipts, orders }
    }
}

fn order<'w>(
    rng: &mut StdRng,
    n: usize,
    all: &'w [Warehouse],
    stock: &mut BTreeMap<(&'w str, &str), u64>,
) -> Value {
    let warehouse = &all[rng.random_range(0..all.len())];
    // One in ten leaves the choice to the house.
    let routed = rng.random_bool(0.9);
    let candidates = if routed { std::slice::from_ref(warehouse) } else { all };
    let service = common_service(rng, candidates);
    let mut lines = Vec::new();
    for line in 1..=lines_of(rng) {
        let sku = SKUS[rng.random_range(0..SKUS.len())];
        let quantity = rng.random_range(1..=4_u64);
        lines.push(json!({"line": line, "sku": sku, "quantity": quantity}));
        for candidate in candidates {
            *stock.entry((candidate.code.as_str(), sku)).or_default() += quantity;
        }
    }
    let allocation = match rng.random_range(0..10) {
        0 => "fill_or_kill",
        1 | 2 => "ship_partial",
        _ => "ship_complete",
    };
    let mut order = json!({
        "reference": format!("DEMO-{n:06}"), "service_level": service, "allocation": allocation,
        "ship_to": address(rng), "lines": lines, "metadata": {"channel": "demo"},
    });
    if routed {
        order["warehouse"] = warehouse.code.as_str().into();
    }
    if rng.random_bool(0.1) {
        order["priority"] = rng.random_range(0..5).into();
    }
    order
}

/// Most orders have one line, few have many.
fn lines_of(rng: &mut StdRng) -> u32 {
    match rng.random_range(0..10) {
        0..6 => 1,
        6..9 => rng.random_range(2..4),
        _ => rng.random_range(4..9),
    }
}

/// A service that every candidate offers, else one of the first's.
fn common_service<'w>(rng: &mut StdRng, candidates: &'w [Warehouse]) -> &'w str {
    let Some((first, others)) = candidates.split_first() else { return "ground" };
    let offered = |service: &&String| others.iter().all(|w| w.services.contains(service));
    let common: Vec<&String> = first.services.iter().filter(offered).collect();
    common.choose(rng).copied().or(first.services.first()).map_or("ground", String::as_str)
}

fn address(rng: &mut StdRng) -> Value {
    let (city, region, postal_code) = CITIES[rng.random_range(0..CITIES.len())];
    let street = format!("{} {}", rng.random_range(10..990), STREETS[rng.random_range(0..STREETS.len())]);
    json!({
        "name": NAMES[rng.random_range(0..NAMES.len())], "lines": [street], "city": city, "region": region,
        "postal_code": postal_code, "country": "US",
    })
}

/// A receipt may hold a million units, as any quantity.
fn receipts(code: &str, sku: &str, mut units: u64) -> Vec<Value> {
    const UNITS_MAX: u64 = 1_000_000;
    let mut all = Vec::new();
    while units > 0 {
        let quantity = units.min(UNITS_MAX);
        units -= quantity;
        all.push(json!({
            "reference": format!("OPEN-{code}-{sku}-{}", all.len() + 1), "warehouse": code, "type": "receipt",
            "sku": sku, "quantity": quantity,
        }));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Sources, load};

    #[test]
    fn a_seed_gives_the_same_orders_and_stock_that_covers_them() {
        let warehouses = load(&Sources::default()).unwrap().settings.warehouses;
        let sample = Sample::new(7, 500, &warehouses);
        assert_eq!(sample.orders, Sample::new(7, 500, &warehouses).orders);
        assert_ne!(sample.orders, Sample::new(8, 500, &warehouses).orders);
        for code in ["ATL1", "DFW2", "RNO3"] {
            for sku in SKUS {
                let asked: u64 = sample
                    .orders
                    .iter()
                    .filter(|o| o["warehouse"] == code || o["warehouse"].is_null())
                    .flat_map(|o| o["lines"].as_array().unwrap())
                    .filter(|l| l["sku"] == sku)
                    .map(|l| l["quantity"].as_u64().unwrap())
                    .sum();
                let received: u64 = sample
                    .receipts
                    .iter()
                    .filter(|r| r["warehouse"] == code && r["sku"] == sku)
                    .map(|r| r["quantity"].as_u64().unwrap())
                    .sum();
                assert_eq!(asked, received, "{code} {sku}");
            }
        }
    }
}
