"""The letters beyond ASCII that languages write, and the encodings that each is commonly found in.

Tables alone, for the guess in `encoding_guess.py`. Letters stand in up to three groups with bars between them: common,
rare, and of scripts without ASCII letters all that are not among the most frequent; of Chinese, Japanese and Korean the
most frequent characters, in no order.
"""

from __future__ import annotations

from dataclasses import dataclass

# In the order of preference: an encoding goes before those behind it unless one of them fits clearly better. The codecs
# are the supersets in use for a name (https://encoding.spec.whatwg.org): cp932 for Shift_JIS, cp949 for EUC-KR, cp950
# for Big5.
ENCODINGS = (
    *("cp1252", "cp1250", "cp1251", "gb18030", "cp950", "cp932", "euc_jp", "cp949"),
    *("cp1253", "cp1254", "cp1255", "cp1256", "cp1257", "cp874"),
    *("cp1258", "koi8_u", "iso8859_2", "iso8859_5", "iso8859_6", "iso8859_7", "iso8859_15", "iso8859_16"),
    *("mac_roman", "mac_latin2", "mac_cyrillic", "cp850", "cp852", "cp866"),
)
# Found in old files alone, or hard to tell from the ones before: these have to fit better by more.
RARE = frozenset(ENCODINGS[ENCODINGS.index("cp1258") :])

_WEST = ("cp1252", "iso8859_15", "mac_roman", "cp850")
_MIDDLE = ("cp1250", "iso8859_2", "iso8859_16", "mac_latin2", "cp852")
_CYRILLIC = ("cp1251", "koi8_u", "iso8859_5", "mac_cyrillic", "cp866")


Alphabet = dict[str, float]  # points for each lower-case letter


def _alphabet(letters: str, *encodings: str) -> tuple[Alphabet, tuple[str, ...]]:
    points = zip((1.0, 0.6, 0.3), letters.split("|"), strict=False)
    return {letter: value for value, group in points for letter in group}, encodings


ALPHABETS = (
    _alphabet("éèàêç|ùûîôâëïüœæÿ", *_WEST),  # French
    _alphabet("äöüß|éàè", *_WEST, *_MIDDLE),  # German
    _alphabet("áéíóúñ|ü", *_WEST),  # Spanish
    _alphabet("ãçáéíóêõâ|úàôü", *_WEST),  # Portuguese
    _alphabet("àèéìòù|îóí", *_WEST),  # Italian
    _alphabet("àéèçíòóú|ïü", *_WEST),  # Catalan
    _alphabet("éëï|èêöüáóíàç", *_WEST),  # Dutch, and the foreign words of English
    _alphabet("äöå|éüàšž", *_WEST),  # Swedish, Finnish
    _alphabet("æøå|éöäüóòôêè", *_WEST),  # Danish, Norwegian
    _alphabet("áæéíðóúþýö|äø", *_WEST[:3]),  # Icelandic, Faroese
    _alphabet("äöõü|šžé", "cp1257", *_WEST[:2]),  # Estonian
    _alphabet("áéíóú|àèìòù", *_WEST),  # Irish, Gaelic
    _alphabet("ąęłóśżćńź|", *_MIDDLE),  # Polish
    _alphabet("áíéčřěžýšů|úňťďó", *_MIDDLE),  # Czech
    _alphabet("áíéčžýšľúť|ňďóôäŕĺ", *_MIDDLE),  # Slovak
    _alphabet("áéőöíóüúű|", *_MIDDLE),  # Hungarian
    _alphabet("ăâîșțşţ|", *_MIDDLE),  # Romanian
    _alphabet("čšžćđ|", *_MIDDLE),  # Croatian, Serbian, Slovene
    _alphabet("ëç|", *_WEST, "cp1250"),  # Albanian
    _alphabet("çğıöşüİâ|îû", "cp1254"),  # Turkish; İ has no lower case of one letter
    _alphabet("ąčęėįšųūž|", "cp1257"),  # Lithuanian
    _alphabet("āčēģīķļņšūž|", "cp1257"),  # Latvian
    _alphabet("ăđơư\u0300\u0301\u0303\u0309\u0323|âêôáàãéèíìóòõúùý", "cp1258"),  # Vietnamese
    _alphabet("оеаинтсрвлкмя||дпуяыьгзбчйхжшюцщэфъё", *_CYRILLIC),  # Russian
    _alphabet("оаинвтеріслк||удмпзяьбгйчхцжїюшщфєґ", *_CYRILLIC),  # Ukrainian
    _alphabet("аеиотнрсвлкд||пмзъуяябгчщжхшцйюфь", *_CYRILLIC),  # Bulgarian
    _alphabet("аоиенртсвудј||кпмлзбгчшжцљњћхђфџѓќѕ", "cp1251", "iso8859_5", "mac_cyrillic"),  # Serbian, Macedonian
    _alphabet("аныіртсеокял||дўуэмпвзбьгчйцхжшёюф", "cp1251", "iso8859_5"),  # Belarusian
    _alphabet("αοιετνσηυρπκ||μλςάίόέήύώωδγθχφβξζψϊϋΐΰ", "cp1253", "iso8859_7"),
    _alphabet("יוהלאמרתשבנד||עחקפםכטןגזסצךץף\u05b0\u05b4\u05b7\u05b8", "cp1255"),
    _alphabet("اليمنتروبدعس||كهقفحةجشصطخأىذضغزثظإءئآؤًّپچژگکی،؟؛ـ", "cp1256", "iso8859_6"),
    _alphabet(
        "านรอกเงมยลวดทสตะปบคหแจพชใไ\u0e31\u0e34\u0e35\u0e48\u0e49||ำขโผถซณธภฟญศษฐฎฃฅฆฉฌฏฑฒฝฤฬฮๆ\u0e36\u0e37\u0e38\u0e39\u0e47\u0e4a\u0e4b\u0e4c",
        "cp874",
    ),
)

# Marks that stand in texts of many languages.
MARKS = frozenset("“”‘’‚„–—…«»‹›€£¥§°·•™®©º²³½¼¾±×¿¡\u00a0\u00adª№←→′″、。")

_SIMPLIFIED = (
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事"
    "成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此"
    "已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代"
    "内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安"
    "少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放"
    "强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运您谢请帮"
    "卡款退钱费送快递店味服客买卖价单号码密银账户转未货找哪怎吗呢吧啊错差坏质喜欢推荐"
)
_TRADITIONAL = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作裡用道行所然家種事"
    "成方多經麼去法學如都同現當沒動面起看定天分還進好小部其些主樣理心她本前開但因只從想實日軍者意無力它與長把機十民第公此"
    "已工使情明性知全三又關點正業外將兩高間由問很最重並物手應戰向頭文體政美相見被利什二等產或新己制身果加西斯月話合回特代"
    "內信表化老給世位次度門任常先海通教兒原東聲提立及比員解水名真論處走義各入幾口認條平系氣題活爾更別打女變四神總何電數安"
    "少報才結反受目太量再感建務做接必場件計管期市直德資命山金指克許統區保至隊形社便空決治展馬科司五基眼書非則聽白卻界達光放"
    "強即像難且權思王象完設式色路記南品住告類求據程北邊死張該交規萬取拉格望覺術領共確傳師觀清今切院讓識候帶導爭運您謝請幫"
    "卡款退錢費送快遞店味服客買賣價單號碼密銀帳戶轉未貨找哪怎嗎呢吧啊錯差壞質喜歡推薦"
)
_KANJI = (
    "日一人大年会国本中長出三同時政事自行社見月分議後前民生連五発間対上部東者党地合市業内相方四定今回新場金員九入選"
    "立開手米力学問高代明実円関決子動京全目表戦経通外最言氏現理調体化田当八六約主題下首意法不来作性的要用制治度務強"
    "気小七成期公野協取都和統以機平総加山思家話世受区領多県続進正安設保改数記院女初北午指権心界支第産結百派点教報済"
    "書府活原先共得解名交資予川向際査勝面委告軍文反元重近千考判認画海参売利組知案道信策集在件団別物側任引使求所次水"
    "半品昨論計死官増係感特情投示変打男基私各始島直両朝革価式確村提運終挙果西勢減台広容必応演電歳住争談能無再位置企"
    "真流格有疑口過局少放税検藤町常校料沢裁状工建語球営空職証土与急止送援供可役構木割聞身費付施切由説転食比難防補車"
    "優夫研収断井何南石足違消境神番規術護展態導鮮備宅害配副算視条幹独警宮究育席輸訪楽起万着乗店述残想線率病農州武声"
    "質念待試族象銀域助労例衛然早張映限親額監環験追審商葉義伝働形景落欧担好退準賞訴辺造英被株頭技低毎医復仕去姿味負"
    "閣韓渡失移差衆個門写評課末守若脳極種美岡影命含福蔵量望松非撃佐核観察整段横融型白深字答夜製票況音申様財港識注呼"
    "渉達"
)
_HANGUL = (
    "이다는에의을가고하지로도한사리기은를어들자아인시대나서일해그수있게만정것부여스라보으전과제장주상우원소과성면신조내요"
    "세동마구연공오비안없않습니까네했었았될된때문세요카드결입금계좌송출환불청번호비밀말씀못왜언디무런너거야데든던였됐좋생각중"
)


@dataclass(frozen=True)
class Characters:
    """The most frequent characters of a language that writes thousands, and its encodings."""

    frequent: frozenset[str]
    encodings: tuple[str, ...]


CHARACTERS = (
    Characters(frozenset(_SIMPLIFIED), ("gb18030",)),
    Characters(frozenset(_TRADITIONAL), ("cp950",)),
    Characters(frozenset(_KANJI), ("cp932", "euc_jp")),
    Characters(frozenset(_HANGUL), ("cp949",)),
)
