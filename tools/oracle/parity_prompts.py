"""The twenty prompts of the parity test: own texts, 1 to 1500 tokens, several scripts."""

LEDGER_PLACES = ["harbour", "mill", "chapel", "orchard", "quarry", "school", "ferry", "market", "bakery", "lighthouse", "station"]
LEDGER_GOODS = ["salt", "rope", "lamp oil", "flour", "nails", "copper wire", "tea", "paper", "candles", "wool", "lime", "glass", "tar"]


def ledger(lines):
    """Prose that never repeats a line and has no source but this function."""
    return "\n".join(
        f"Entry {n}: the {LEDGER_PLACES[n * 7 % 11]} received {n * 37 % 91 + 2} crates of {LEDGER_GOODS[n * 5 % 13]} "
        f"and sent {n * 53 % 29 + 1} back to the {LEDGER_PLACES[(n * 3 + 4) % 11]}."
        for n in range(1, lines + 1)
    )


def chat(question):
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


# name, text, number of tokens to keep (None: all of them)
PROMPTS = [
    ("one-token", "The", 1),
    ("two-tokens", "Once upon", 2),
    ("bos-only", "<|im_start|>", None),
    ("capital", chat("What is the capital of France?"), None),
    ("haiku", chat("Write a haiku about a tidal pool."), None),
    ("rust", "/// Returns the greatest common divisor of `a` and `b`.\nfn gcd(a: u64, b: u64) -> u64 {\n", None),
    ("python", "def flatten(tree):\n    \"\"\"Yield the leaves of nested lists, left to right.\"\"\"\n    for node in tree:\n", None),
    ("sql", "-- the three customers who spent most in 2024\nSELECT customers.name, SUM(orders.total)\nFROM", None),
    ("json", '{"city": "Oslo", "population": 717710, "rivers": ["Akerselva", "Alna"], "twin_cities": [', None),
    ("html", "<!doctype html>\n<html lang=\"en\">\n<head>\n  <title>Tide tables</title>\n  <style>\n    table {", None),
    ("arithmetic", "12 + 30 = 42\n45 + 18 = 63\n99 + 7 = 106\n250 + 251 =", None),
    ("chinese", "春天来了，河边的柳树发芽了。孩子们放下书包，", None),
    ("japanese", "むかしむかし、山のふもとに小さな茶屋がありました。", None),
    ("arabic", "في صباح يوم بارد خرج الصياد إلى البحر", None),
    ("hindi", "नदी के किनारे एक पुराना बरगद का पेड़ था।", None),
    ("russian", "Старый смотритель маяка каждый вечер поднимался по лестнице и", None),
    ("emoji", "Weather this week: ☀️🌤️⛈️🌈 and my mood: 😀😴🙃 👩‍🚀👨‍👩‍👧‍👦 so the plan is 🏖️", None),
    ("spaces", "a  b   c    d\t\te\n\n\n    f", None),
    ("ledger-400", ledger(30), 400),
    ("ledger-1500", ledger(90), 1500),
]
