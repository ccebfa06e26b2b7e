"""Texts that pandas takes for a missing value: trainers that read CSV with its defaults lose them."""

# pandas/_libs/parsers.pyx `STR_NA_VALUES`
MISSING = frozenset({
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A",
    "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
})  # fmt: skip
