"""Hypothesis strategies for strange texts, which a tokenizer must restore exactly."""

from hypothesis import strategies as st

PARTS = [
    *(
        "\0",
        "\r\n",
        "\n\n",
        "\t",
        " ",
        "   ",
        "\ufeff",
        "\ufffd",
        "\u200d",
        "\u00a0",
        "\x1c",
        "\x85",
    ),
    *("<|endoftext|>", "don't", "1234", "ﬀ", "é", "e\u0301", "\U0001f469\u200d\U0001f680", "🇮🇳"),
    *("漢字かな", "नमस्ते", "क्षि", "한국어", "שלום", "\U0010ffff", "x" * 70),
]
ANY_CHARACTER = st.characters(exclude_categories=["Cs"])
strange_text = st.lists(st.one_of(st.sampled_from(PARTS), st.text(ANY_CHARACTER, max_size=8))).map(
    "".join
)
CHINESE = "天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。寒來暑往，秋收冬藏。閏餘成歲，律呂調陽。\n"
HINDI = "नमस्ते दुनिया। यह एक छोटा सा पाठ है, जिसमें मात्राएँ और संयुक्ताक्षर हैं: क्षि, त्र, ज्ञ।\n"
EMOJI = "😀 👩‍🚀🇮🇳 👍🏽 family: 👨‍👩‍👧‍👦, café ☕️ — ok ✅\n"
