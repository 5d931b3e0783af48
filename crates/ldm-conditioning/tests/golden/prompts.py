"""Five hundred prompts of every kind: what people type, and what makes tokenizers differ."""
import random

SEED = 7
COUNT = 500

PLAIN = """a photograph of an astronaut riding a horse
a virus monster is playing guitar, oil on canvas
a painting of a fox sitting in a field at sunrise in the style of Claude Monet
the quick brown fox jumps over the lazy dog
Portrait of a woman, 35mm, f/1.8, bokeh, --no hands
An armchair in the shape of an avocado; a clock in the shape of a peach.
don't stop, it's what we've said: they're here, I'd go, you'll see, I'm sure
DON'T STOP, IT'S WHAT WE'VE SAID: THEY'RE HERE
trending on artstation, 8k, ultra-detailed, octane render, unreal engine 5
1girl, (masterpiece:1.2), [blurry], {detailed}, <lora:thing:0.8>
2+2=4, 3.14159, 1,000,000 and 10^-6; 50% of $20
http://example.org/a/b?c=d&e=f#g and mail@example.org
C:\\Users\\me\\image.png "quoted" 'single' `tick`
#hashtag @mention snake_case CamelCase kebab-case
the the the the the the""".splitlines()

LANGUAGES = """Ein großer Bär überquert die Straße, ärgerlich
une crème brûlée à l'œuf, façon grand-mère, où ça?
El niño comió jalapeños en la montaña ¿verdad? ¡sí!
ação, coração, pão de açúcar, avô e avó
Šílený kůň pěl ďábelské ódy
Zażółć gęślą jaźń
Árvíztűrő tükörfúrógép
Þórr og Æsir, blóð, ísinn
İstanbul'da ılık bir gün, IŞIK, ığdır
Ελληνικός ναός στο ηλιοβασίλεμα, ΟΔΥΣΣΕΥΣ
Красная площадь зимой, Ёлка и йод
Київ увечері, їжак, ґанок
გამარჯობა საქართველო
Հայաստան, արարատ
שלום עולם, שָׁלוֹם
مرحبا بالعالم، قِطّة جميلة
خانه‌ای کنار دریا
नमस्ते दुनिया, हिमालय पर सूर्योदय
বাংলাদেশের নদী
தமிழ்நாடு கோயில்
ภาพวาดของช้างในป่า
ປະເທດລາວ
ကမ္ဘာလောက
ភាសាខ្មែរ
Tiếng Việt có dấu: phở, bánh mì, Đà Nẵng
日本の山、富士山の絵
東京タワー ﾊﾝｶｸ ｶﾀｶﾅ ぜんかく
한국의 가을 풍경, 서울
한국 (decomposed jamo)
中文提示词：一只猫坐在椅子上。
繁體中文與簡體中文混排abc
𠀀𠮷野家 𪚥
ⵣⴰⵎⴰⵣⵉⵖ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ
ꜳ ꝏ ǆ Ǆ ǅ ﬁ ﬂ ﬃ ß ẞ""".splitlines()

EMOJI = """🦊 in the snow ❄️
👩‍🚀👨‍👩‍👧‍👦🏳️‍🌈
👍🏽👍🏿 thumbs
🇫🇷🇩🇪🇯🇵 flags
❤❤️💔 ☺☺️
1️⃣2️⃣#️⃣*️⃣
🫠🫥🪼🫎 newer ones
a😀b😀c
😀😀😀😀😀😀😀😀😀😀
™ © ® ℃ № ½ ¾ ² ³ ① ⅷ Ⅷ ㊗ ㍿
→ ← ↔ ⇒ ∀ ∃ ∑ ∏ √ ∞ ≈ ≠ ≤ π µ Ω
“quotes” ‘single’ „low“ «guillemets» – — … • ‽ ⁇
𝓯𝓪𝓷𝓬𝔂 𝐛𝐨𝐥𝐝 𝔉𝔯𝔞𝔨𝔱𝔲𝔯 ｆｕｌｌｗｉｄｔｈ
Z̷͙̈a̵̱͂l̶̰̓g̸̱̈́o̷̜̊
é é å Å Å ö ö ñ (composed, decomposed)
ạ̈ ạ̈ q̣̇ q̣̇""".splitlines()

MARKUP = """<b>bold</b> &amp; <i>italic</i> &lt;tag&gt; &quot;x&quot; &#39;y&#39; &nbsp;
&amp;amp; &eacute; &copy;
<|startoftext|>a cat<|endoftext|>
a cat<|endoftext|> with more after it
<|ENDOFTEXT|> <|StartOfText|> <|end of text|>
[CLS] a cat [SEP] a dog [PAD] [MASK] [UNK]
[cls] [sep] [Mask]
<s></s><pad><unk>
a</w> b</w> @@ ## ##ing
caf\u00c3\u00a9 and it\u00e2\u0080\u0099s: text that was decoded wrongly
{"json": [1, 2, {"a": null}]}
| table | of | cells |
$\\frac{a}{b}$ \\LaTeX
***bold*** __under__ ~~gone~~ `code`
&&& ||| !!! ??? ... ,,, ;;; --- ___ ===
a/b\\c|d~e^f""".splitlines()

SPACES = [
    "", " ", "   ", "\t", "\n", "\r\n", "\u00a0", "\u3000", "\u2003", "\u200b", "\ufeff", "\u2028\u2029", "\u0085",
    "  double  spaces   inside  ", "tab\tand\nnewline\r\nand\vvertical\fform", "\u00a0hard\u00a0spaces\u00a0",
    "ideographic\u3000space\u3000here", "thin\u2009hair\u200aspace zero\u200bwidth join\u200der\u200cnon",
    "soft\u00adhyphen and word\u2060joiner", "\ufeffbyte order mark", "line\u2028and paragraph\u2029ends",
    "next\u0085line", "mongolian\u180eseparator", "a\u0000b null", "bell\u0007 escape\u001b[31mred\u001b[0m",
    "delete\u007f and c1\u0080\u0090\u009f", "\u202eright to left\u202c override", "\u0001\u0002\u0003", "\u0000",
    "\ud7ff \ue000 \uf8ff private use", "\ufffd replacement \ufffe \uffff", "\U0001f3fb\ufe0f\u20e3", "\u0301", "\u0300\u0301",
    "a\u0301\u0327 e\u0327\u0301", "\U000e0041\U000e0042 tags", "\U0010ffff last", "\u1e9b\u0323", "\u212b \u2126 \u212a",
    "\u0130 \u0131 I i", "\u03a3 \u03c3 \u03c2 \u039f\u03a3", "\u0345 \u1fb3", "\u01c5 \u01c8",
]


def prompts():
    """`COUNT` prompts, always the same."""
    chance = random.Random(SEED)
    fixed = PLAIN + LANGUAGES + EMOJI + MARKUP + SPACES
    words = " ".join(PLAIN).split()
    long = [
        "a " * 200, "snow " * 76, "snow " * 75, "snow " * 74, "🦊" * 120, "富士山" * 60, "x" * 100, "x" * 101, "x" * 1000,
        "antidisestablishmentarianism" * 20, "." * 300, "1234567890" * 30, "a-b_c" * 80, "é" * 150, "\u0301" * 90,
        "Llanfairpwllgwyngyllgogerychwyrndrobwllllantysiliogogogoch " * 6, " ".join(words), " ".join(LANGUAGES),
        " ".join(EMOJI), " ".join(MARKUP), "".join(SPACES), "\u200b" * 100, "가" * 100, "ญ" * 100, "नमस्ते" * 30,
    ]
    out = fixed + long
    # Every character of the scripts people type, a run of them a prompt.
    for start in range(0x20, 0x600, 48):
        out.append("".join(map(chr, range(start, start + 48))))
    for start in (0x900, 0xE00, 0x1100, 0x1E00, 0x2000, 0x2030, 0x2100, 0x2190, 0x2460, 0x2600, 0x3040, 0x30A0, 0x3200,
                  0x4E00, 0xAC00, 0xF900, 0xFB00, 0xFE30, 0xFF01, 0x10400, 0x1D400, 0x1F300, 0x1F600, 0x1F900, 0x20000,
                  0x2A700, 0x2F800):
        out.append(" ".join(map(chr, range(start, start + 40))))
    pieces = [line for line in PLAIN + LANGUAGES + EMOJI + MARKUP if line]
    joints = [" ", "  ", ", ", "", "\n", ". ", " - ", "/", "\u3000", "…"]
    while len(out) < COUNT:
        count = chance.randint(1, 3)
        parts = []
        for _ in range(count):
            line = chance.choice(pieces)
            start = chance.randrange(len(line))
            part = line[start : start + chance.randint(3, 40)]
            parts.append(chance.choice([str, str.upper, str.lower, str.title, str.swapcase])(part))
        out.append(chance.choice(joints).join(parts))
    return out[:COUNT]
