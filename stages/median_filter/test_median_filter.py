"""Compares median_filter with a plain sliding median: `python3 test_median_filter.py`, or pytest."""

import unittest

import numpy as np

import median_filter


def plain_median(values, positions, half_n):
    medians = []
    for position in positions:
        window = sorted(values[np.abs(positions - position) <= half_n])
        medians.append(window[(len(window) - 1) // 2])
    return np.array(medians)


class SlidingMedian(unittest.TestCase):
    def test_equals_a_plain_sliding_median(self):
        random = np.random.default_rng(2004)
        for sample_n in (1, 2, 5, 300):
            for present in (1.0, 0.8, 0.2):
                positions = np.flatnonzero(random.random(sample_n) < present)
                if len(positions) == 0:
                    continue
                for lowest, highest in ((7, 8), (-5, 5), (0, 2048), (-(2**31) + 1, 2**31)):
                    values = random.integers(lowest, highest, len(positions))
                    for half_n in (0, 1, 3, 36, 5000):
                        found = median_filter.sliding_median(values, positions, half_n)
                        self.assertEqual(found.tolist(), plain_median(values, positions, half_n).tolist())


class RemoveBaseline(unittest.TestCase):
    def test_a_step_of_the_baseline_goes_and_a_spike_stays(self):
        samples = np.ma.array(np.full(3000, 1100, dtype=np.int32), mask=np.zeros(3000, dtype=bool))
        samples[1500:] += 300
        samples[700:705] += 150
        corrected = median_filter.remove_baseline(samples, 1024, [36, 108])
        self.assertEqual(corrected[702], 1024 + 150)
        self.assertEqual(set(corrected[:600]) | set(corrected[2000:]), {1024})

    def test_missing_samples_stay_missing_and_do_not_count(self):
        mask = np.zeros(400, dtype=bool)
        mask[100:200] = True
        samples = np.ma.array(np.where(mask, 0, 5000).astype(np.int32), mask=mask)
        corrected = median_filter.remove_baseline(samples, -7, [36, 108])
        self.assertEqual(corrected.mask.tolist(), mask.tolist())
        self.assertEqual(set(corrected.compressed()), {-7})

    def test_a_lead_without_any_sample_is_left_alone(self):
        samples = np.ma.array(np.zeros(10, dtype=np.int32), mask=np.ones(10, dtype=bool))
        self.assertTrue(median_filter.remove_baseline(samples, 0, [36, 108]).mask.all())

    def test_what_does_not_fit_is_refused(self):
        samples = np.ma.array(np.array([2**31 - 1, -(2**31) + 1, -(2**31) + 1], dtype=np.int32), mask=[False] * 3)
        with self.assertRaises(median_filter.Failure):
            median_filter.remove_baseline(samples, 0, [1, 1])


if __name__ == "__main__":
    unittest.main()
