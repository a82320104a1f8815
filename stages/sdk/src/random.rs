//! Seeds made of seeds.

/// The seed of part `idx` of a stage's randomness: near indices and near seeds give far seeds, and more parts change none.
///
/// SplitMix64's finaliser (Steele, Lea & Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
#[must_use]
pub fn derived_seed(seed: u64, idx: u64) -> u64 {
    let mix = |value: u64| {
        let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    mix(seed ^ mix(idx))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn near_seeds_are_far_apart() {
        // The mixed 0 is SplitMix64's first number from the state 0 (S. Vigna's reference), here as a seed that undoes it.
        assert_eq!(derived_seed(0xe220_a839_7b1d_cdaf, 0), 0xe220_a839_7b1d_cdaf);
        let seeds: BTreeSet<u64> = (0..50).flat_map(|seed| (0..50).map(move |idx| derived_seed(seed, idx))).collect();
        assert_eq!(seeds.len(), 2500);
        let flipped = |a: u64, b: u64| (a ^ b).count_ones();
        assert!((10..54).contains(&flipped(derived_seed(1, 1), derived_seed(1, 2))));
        assert!((10..54).contains(&flipped(derived_seed(1, 1), derived_seed(2, 1))));
    }
}
