"""Guesses at encodings: a table of languages with the encodings that texts are found in, texts alone and files."""

import codecs

import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.encoding import decode, decode_all, encoding_finding
from edgetune.tune.data.sources import read_source

# Each text alone is read as cp1252, none as cp1250, Mac Roman or another that has most of its letters too.
WESTERN = {
    "French": [
        "Ma carte n'est pas encore arrivée",
        "Où est passé mon virement ?",
        "J'ai été débité deux fois à Noël",
        "Le délai est très long, ça ne va pas",
        "Pourquoi ce prélèvement a-t-il échoué ?",
        "merci, tout est réglé",
    ],
    "French, short": ["déjà vu", "très bien", "à côté"],
    "German": [
        "Die Überweisung ist nicht angekommen",
        "Ich möchte mein Konto schließen",
        "Wo ist meine neue Karte für zu Hause?",
        "Die Gebühr war zu hoch, bitte zurück",
        "Können Sie mir helfen?",
        "Größe passt nicht",
    ],
    "Spanish": [
        "¿Dónde está mi tarjeta?",
        "No he recibido el reembolso todavía",
        "La contraseña no funciona desde mañana",
        "El artículo llegó dañado",
        "Quiero cancelar la suscripción",
        "¡Qué rápido!",
    ],
    "Portuguese": [
        "Não consigo fazer a transferência",
        "O cartão não chegou até amanhã",
        "São 2 reais em atraso",
        "Quero cancelar a inscrição",
        "A senha está errada, não funciona",
        "obrigado, já está resolvido",
    ],
    "Italian": [
        "Perché la carta non è arrivata?",
        "Il bonifico è già partito",
        "Non so più la password",
        "C'è un addebito che non riconosco",
        "La qualità è ottima",
        "sarà un problema?",
    ],
    "Catalan": [
        "Què puc fer amb la comissió?",
        "És massa car això",
        "No sé la contrasenya però l'adreça sí",
        "Gràcies, perfecte",
    ],
    "Dutch": [
        "Ik heb geen reünie",
        "De cliënt is niet bereikbaar",
        "één keer betaald",
        "financiële problemen met België",
    ],
    "Swedish": [
        "Mitt kort har inte kommit än",
        "Överföringen är försenad",
        "Hur ändrar jag lösenordet?",
        "Jag vill stänga kontot på måndag",
        "Varför blev köpet nekat?",
    ],
    "Finnish": [
        "Korttini ei ole vielä tullut",
        "Miksi maksu hylättiin?",
        "Haluan sulkea tilini tänään",
        "Työpaikan osoite on väärä",
    ],
    "Danish": [
        "Mit kort er ikke nået frem",
        "Hvorfor blev købet afvist?",
        "Jeg ønsker at lukke kontoen på mandag",
        "Overførslen er forsinket, hjælp",
    ],
    "Norwegian": [
        "Kortet mitt har ikke kommet ennå",
        "Hvorfor ble kjøpet avvist på lørdag?",
        "Jeg ønsker å stenge kontoen",
        "Overføringen er forsinket",
    ],
    "Icelandic": [
        "Kortið mitt er ekki komið",
        "Hvar er millifærslan mín?",
        "Ég vil loka reikningnum á þriðjudag",
        "Þetta er of dýrt",
    ],
    "English quotes": [
        "The fee was £34 and that’s not what you’d said",
        "“Refused” again, 39 times",
        "I can’t log in… help",
    ],
    "English pounds": ["It cost £20", "it cost £34 twice"],
    "English loans": ["the café was closed", "my résumé is attached", "naïve question"],
    "English dashes": ["it’s broken – again", "don’t do that"],
    "English signs": ["It is 20°C here", "costs 5 € a day", "¾ of it is fine, ½ is not", "© 2020 Company™"],
}

OTHERS = {
    "Polish": (
        "cp1250 iso8859_2 cp852",
        [
            "Gdzie jest moja nowa karta płatnicza?",
            "Przelew nie dotarł do odbiorcy",
            "Chcę zamknąć konto, proszę o pomoc",
            "Dlaczego pobrano opłatę dwa razy?",
            "Hasło nie działa, są błędy",
            "źle się czuję",
        ],
    ),
    "Czech": (
        "cp1250 iso8859_2 cp852",
        [
            "Moje karta ještě nepřišla",
            "Proč byl převod zamítnut?",
            "Chci zrušit účet",
            "Heslo nefunguje, prosím pomoc",
            "Kdy přijdou peníze zpět?",
            "Příliš žluťoučký kůň",
        ],
    ),
    "Slovak": (
        "cp1250",
        [
            "Moja karta ešte neprišla",
            "Prečo bol prevod zamietnutý?",
            "Chcem zrušiť účet",
            "Kedy prídu peniaze späť?",
            "Ďakujem, vyriešené",
        ],
    ),
    "Hungarian": (
        "cp1250 iso8859_2",
        [
            "Nem érkezett meg a kártyám",
            "Miért utasították el a fizetést?",
            "Szeretném megszüntetni a számlámat",
            "Hol van az átutalás? Még nem jött meg",
            "Köszönöm szépen, jó szolgáltatás, győztes",
        ],
    ),
    "Romanian": (
        "cp1250 iso8859_2",
        [
            "Cardul meu nu a ajuns încă",
            "De ce a fost respinsă plata?",
            "Vreau să închid contul",
            "Parola nu funcţionează",
            "Mulţumesc, totul este în regulă şi bine",
        ],
    ),
    "Croatian": (
        "cp1250",
        [
            "Moja kartica još nije stigla",
            "Zašto je uplata odbijena?",
            "Želim zatvoriti račun",
            "Gdje je moj povrat novca? Nisam ga još dobio",
            "Hvala, riješeno je već",
        ],
    ),
    "Slovene": (
        "cp1250",
        [
            "Moja kartica še ni prišla",
            "Zakaj je bilo plačilo zavrnjeno?",
            "Želim zapreti račun",
            "Hvala, vse je rešeno",
        ],
    ),
    "Turkish": (
        "cp1254",
        [
            "Kartım hâlâ gelmedi",
            "Ödeme neden reddedildi? Yardım edin lütfen",
            "Hesabımı kapatmak istiyorum",
            "Şifremi unuttum, giriş yapamıyorum",
            "Para iadesi nerede? Çok uzun sürdü",
        ],
    ),
    "Estonian": (
        "cp1257",
        [
            "Minu kaart pole veel jõudnud",
            "Miks makse tagasi lükati?",
            "Soovin konto sulgeda täna öösel",
            "Üks küsimus veel",
        ],
    ),
    "Lithuanian": (
        "cp1257",
        [
            "Mano kortelė dar neatėjo",
            "Kodėl mokėjimas buvo atmestas?",
            "Noriu uždaryti sąskaitą",
            "Ačiū, viskas gerai, išspręsta",
        ],
    ),
    "Latvian": (
        "cp1257",
        [
            "Mana karte vēl nav pienākusi",
            "Kāpēc maksājums tika noraidīts?",
            "Vēlos slēgt kontu",
            "Paldies, viss ir kārtībā, atrisināts",
        ],
    ),
    "Russian": (
        "cp1251 koi8_u iso8859_5 mac_cyrillic cp866",
        [
            "Где моя новая карта?",
            "Не могу войти в приложение",
            "Верните деньги, пожалуйста",
            "Почему платёж был отклонён?",
            "хочу закрыть счёт",
            "ещё вопрос",
        ],
    ),
    "Russian, short": ("cp1251 koi8_u cp866", ["привет", "не работает", "спасибо"]),
    "Ukrainian": (
        "cp1251 koi8_u",
        [
            "Де моя нова картка?",
            "Не можу увійти в застосунок",
            "Поверніть гроші, будь ласка",
            "Чому платіж було відхилено?",
            "дякую, все вирішено",
        ],
    ),
    "Bulgarian": (
        "cp1251",
        [
            "Къде е новата ми карта?",
            "Не мога да вляза в приложението",
            "Върнете ми парите, моля",
            "Защо плащането беше отказано?",
        ],
    ),
    "Serbian": (
        "cp1251",
        [
            "Где је моја нова картица?",
            "Не могу да се пријавим",
            "Вратите ми новац, молим вас",
            "Зашто је уплата одбијена?",
        ],
    ),
    "Greek": (
        "cp1253 iso8859_7",
        [
            "Πού είναι η κάρτα μου;",
            "Δεν μπορώ να συνδεθώ",
            "Θέλω πίσω τα χρήματά μου",
            "Γιατί απορρίφθηκε η πληρωμή;",
            "ευχαριστώ πολύ",
        ],
    ),
    "Hebrew": ("cp1255", ["איפה הכרטיס שלי?", "אני לא מצליח להתחבר", "תחזירו לי את הכסף", "למה התשלום נדחה?"]),
    "Arabic": (
        "cp1256 iso8859_6",
        ["أين بطاقتي الجديدة؟", "لا أستطيع تسجيل الدخول", "أعيدوا لي المال من فضلكم", "لماذا رفض الدفع؟"],
    ),
    "Persian": ("cp1256", ["كارت جديد من كجاست؟", "چرا پرداخت رد شد", "پول من را برگردانيد"]),
    "Thai": ("cp874", ["บัตรของฉันอยู่ที่ไหน", "ไม่สามารถเข้าสู่ระบบได้", "ขอเงินคืนด้วยครับ", "ทำไมการชำระเงินถูกปฏิเสธ"]),
    "Chinese": (
        "gb18030",
        [
            "我的卡在哪里",
            "请帮我退款",
            "快递很快，味道也很好，下次还会再来的",
            "为什么付款失败了？",
            "质量太差，不推荐",
            "客服态度不错",
        ],
    ),
    "Chinese, short": ("gb18030", ["我的卡在哪里", "退款", "请帮我"]),
    "Chinese words": ("gb18030", ["退货", "物流慢", "破损", "包装精美", "屏幕碎裂"]),
    "Chinese, Taiwan": (
        "cp950",
        [
            "我的卡片在哪裡",
            "請幫我退款",
            "快遞很快，味道也很好，下次還會再來的",
            "為什麼付款失敗了？",
            "品質太差，不推薦",
            "客服態度不錯",
        ],
    ),
    "Chinese, Taiwan, short": ("cp950", ["退款", "轉帳失敗", "請幫忙"]),
    "Japanese": (
        "cp932 euc_jp",
        [
            "私のカードはどこですか",
            "ログインできません",
            "返金をお願いします",
            "なぜ支払いが拒否されたのですか？",
            "配達がとても早かったです",
            "品質が悪い",
        ],
    ),
    "Japanese words": ("cp932", ["返金", "送金失敗", "残高照会"]),
    "Korean": (
        "cp949",
        [
            "내 카드는 어디에 있나요?",
            "로그인이 안 됩니다",
            "환불해 주세요",
            "왜 결제가 거절되었나요?",
            "배송이 정말 빨랐어요",
            "품질이 나쁘다",
        ],
    ),
    "Korean words": ("cp949", ["환불", "카드 분실", "비밀번호 변경"]),
}


def guess(content):
    return decode(content, None, "a.csv")


def rows_of(texts):
    """A file of labelled rows."""
    return "\n".join(["text,label", *(f'"{text}",{"ab"[n % 2]}' for n, text in enumerate(texts))]) + "\n"


@pytest.mark.parametrize("text", [text for texts in WESTERN.values() for text in texts])
def test_each_text_in_windows_1252_is_read_as_it_is(text):
    assert guess(text.encode("cp1252")).text == text


@pytest.mark.parametrize("language", WESTERN)
def test_files_in_windows_1252_are_guessed_by_name(language):
    text = rows_of(WESTERN[language])
    assert guess(text.encode("cp1252")).text == text
    assert guess(text.encode("cp1252")).guessed == "cp1252"


@pytest.mark.parametrize(
    ("language", "encoding"), [(name, one) for name, (all_, _) in OTHERS.items() for one in all_.split()]
)
def test_files_in_other_encodings_are_read_as_they_are(language, encoding):
    text = rows_of(OTHERS[language][1])
    content = text.encode(encoding)
    assert guess(content).text == text


@pytest.mark.parametrize("encoding", ["mac_roman", "cp850"])
@pytest.mark.parametrize("language", ["French", "German", "Spanish"])
def test_old_western_files_are_no_windows_1252(language, encoding):
    text = rows_of(WESTERN[language])
    assert guess(text.encode(encoding)).text == text


def test_several_languages_in_one_file_are_no_reason_for_another_encoding():
    text = rows_of([text for texts in WESTERN.values() for text in texts])
    assert guess(text.encode("cp1252")).guessed == "cp1252"


def test_euros_instead_of_currency_signs_make_latin_9():
    text = "déjà payé 20 €, le prix était 25 €\n"
    assert guess(text.encode("iso8859_15")).text == text


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("language", ["Russian", "Chinese", "Greek", "Japanese"])
def test_zeros_at_every_second_byte_mean_utf_16(language, encoding):
    text = rows_of(OTHERS[language][1])
    assert (guess(text.encode(encoding)).text, guess(text.encode(encoding)).guessed) == (text, encoding)
    english = rows_of(["where is it", "not there"])
    assert guess(english.encode(encoding)).text == english


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [(codecs.BOM_UTF32_LE, "utf-32-le"), (codecs.BOM_UTF16_BE, "utf-16-be"), (codecs.BOM_UTF8, "utf-8")],
)
def test_byte_order_marks_are_obeyed(mark, encoding):
    decoded = guess(mark + "text,label\né,x\n".encode(encoding))
    assert (decoded.text, decoded.guessed) == ("text,label\né,x\n", None)


def test_a_single_zero_is_no_utf_16():
    assert guess(b"text,label\na\0b,x\n").text == "text,label\na\0b,x\n"


def test_utf_8_with_a_damaged_line_is_refused_by_its_line():
    content = "".join(f"déjà vu à côté {n},x\n" for n in range(5)).encode() + b"d\xe9j\xe0,y\n"
    with pytest.raises(DataError, match=r"a.csv, line 6: byte \d+ is not utf-8 .*, which the rest is."):
        guess(content)


def test_lines_of_two_encodings_in_one_file_are_refused():
    texts = [f"déjà vu à côté {n}\n" for n in range(8)]
    content = b"".join(text.encode(("utf-8", "cp1252")[n % 2]) for n, text in enumerate(texts))
    with pytest.raises(
        DataError, match=r"of its 8 lines beyond ASCII 4 are UTF-8, such as line 1, .* such as line 2\."
    ):
        guess(content)


def test_bytes_that_fit_nowhere_are_refused():
    with pytest.raises(DataError, match="no other encoding fits its bytes"):
        guess(bytes(range(128, 256)) * 20)


def test_the_sentence_shows_words_that_the_guess_made():
    decoded = guess("The fee was £34, and that’s it\n“No”\n".encode("cp1252"))
    assert encoding_finding(decoded, "a.csv") == (
        "a.csv is not UTF-8: it was read as cp1252, a guess that makes '£34', 'that’s', '“No”' (data.encoding).",
    )


def test_short_files_of_one_source_are_guessed_together():
    texts = ["我的卡在哪里", "退款", "请帮我", "错", "no letters"]
    contents = [text.encode("gb18030") for text in texts]
    decoded = decode_all(contents, None, list("abcde"))
    assert [file.text for file in decoded] == texts
    assert [file.guessed for file in decoded] == ["gb18030"] * 4 + [None]


def test_a_few_files_that_are_not_utf_8_leave_the_others_alone():
    texts = ["déjà vu", "à côté", "très bien", "où est-il allé"]
    contents = [*(text.encode() for text in texts[:3]), texts[3].encode("cp1252")]
    assert [file.text for file in decode_all(contents, None, list("abcd"))] == texts


def test_a_folder_of_classes_has_one_encoding(tmp_path):
    for number, text in enumerate(["我的卡在哪里", "退款", "请帮我"] * 4):
        path = tmp_path / ("neg", "pos")[number % 2] / f"{number:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(f"{text}{number}".encode("gb18030"))
    table = read_source(str(tmp_path), FileOptions()).train
    assert set(table.columns["text"]) == {f"{('我的卡在哪里', '退款', '请帮我')[n % 3]}{n}" for n in range(12)}
    assert table.findings == (
        "12 of 12 files are not UTF-8: they were read as gb18030, a guess that makes "
        "'我的卡在哪里0', '请帮我2', '退款4' (data.encoding).",
    )


def test_a_short_test_file_is_read_as_the_training_file_was(tmp_path):
    polish = OTHERS["Polish"][1]
    (tmp_path / "train.csv").write_bytes(rows_of(polish).encode("cp1250"))
    (tmp_path / "test.csv").write_bytes(rows_of(["dotarł", "łatwe"]).encode("cp1250"))
    tables = read_source(str(tmp_path), FileOptions())
    assert tables.test.columns["text"] == ("dotarł", "łatwe")
