//! Sizes as operators write them.

/// The units of sizes and their bytes, from large to small.
pub const SIZE_FACTORS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("B", 1),
];

/// The shortest text that stands for this many bytes in a configuration: `1 GiB`.
pub fn show_size(bytes: u64) -> String {
    let (unit, factor) = SIZE_FACTORS
        .into_iter()
        .find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor))
        .unwrap_or(("B", 1));
    format!("{} {unit}", bytes / factor)
}
