"""Spans as people write them: every scheme of tags, files of words, JSON of four tools, and what is broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.serve.errors import DataError
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.reading import Table, read_table
from edgetune.tune.data.sources import read_source
from edgetune.tune.data.spans import choose_span_columns, read_span_rows, scheme_of, spans_in, word_of
from edgetune.tune.tasks import TASKS

WORDS = ["Ada", "Lovelace", "met", "Bob", "Eve", "in", "New", "York", "."]
TEXT = "Ada Lovelace met Bob Eve in New York ."
SPANS = [(0, 12, "PER"), (17, 20, "PER"), (21, 24, "PER"), (28, 36, "LOC")]
TAGS = {
    "BIO": "B-PER I-PER O B-PER B-PER O B-LOC I-LOC O",
    "IOB1": "I-PER I-PER O I-PER B-PER O I-LOC I-LOC O",
    "BIOES": "B-PER E-PER O S-PER S-PER O B-LOC E-LOC O",
    "BILOU": "B-PER L-PER O U-PER U-PER O B-LOC L-LOC O",
    "BMES": "B-PER E-PER O S-PER S-PER O B-LOC E-LOC O",
}


def rows_of(columns: dict[str, list[object]], text: str | None = None, label: str | None = None):
    cells = {
        name: tuple(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for value in values)
        for name, values in columns.items()
    }
    table = Table("data.jsonl", cells)
    return read_span_rows(table, choose_span_columns(table, text, label))


@pytest.mark.parametrize("scheme", TAGS)
def test_every_scheme_is_read_by_one_rule(scheme):
    rows = rows_of({"tokens": [WORDS], "ner_tags": [TAGS[scheme].split()]})
    assert rows.texts == (TEXT,)
    assert word_of(rows.labels[0]) == SPANS


def test_types_without_prefix_join_with_their_neighbours():
    rows = rows_of({"words": [WORDS], "tags": ["PER PER O PER O O art-film art-film O".split()]})
    assert word_of(rows.labels[0]) == [(0, 12, "PER"), (17, 20, "PER"), (28, 36, "art-film")]


def test_schemes_are_named():
    tags = [set(row.split()) for row in TAGS.values()]
    assert [scheme_of(row) for row in tags] == ["BIO or IOB1", "BIO or IOB1", "BIOES", "BILOU", "BIOES"]
    assert scheme_of({"B-a", "M-a", "E-a"}) == "BMES"
    assert scheme_of({"a", "O"}) == "IO"


def test_characters_are_joined_without_blanks_and_words_of_chinese_too():
    rows = rows_of({"tokens": [list("李明在北京2号")], "tags": ["B-N E-N O B-L E-L O O".split()]})
    assert (rows.texts[0], word_of(rows.labels[0])) == ("李明在北京2号", [(0, 2, "N"), (3, 5, "L")])
    rows = rows_of({"tokens": [["李明", "在", "北京", "IBM", "公司"]], "tags": ["B-N O B-L B-O I-O".split()]})
    assert rows.texts[0] == "李明在北京 IBM 公司"
    assert word_of(rows.labels[0]) == [(0, 2, "N"), (3, 5, "L"), (6, 12, "O")]


def test_words_without_a_letter_keep_the_others_in_place():
    rows = rows_of({"tokens": [["I", "❤", "️", "Rome"]], "tags": ["O O O B-LOC".split()]})
    assert [rows.texts[0][start:end] for start, end, _ in word_of(rows.labels[0])] == ["Rome"]


SPAN_CELLS = {
    "doccano": ({"text": [TEXT], "label": [[[0, 12, "PER"]]]}),
    "doccano with objects": (
        {"text": [TEXT], "entities": [[{"id": 1, "label": "PER", "start_offset": 0, "end_offset": 12}]]}
    ),
    "Prodigy": (
        {"text": [TEXT], "spans": [[{"start": 0, "end": 12, "label": "PER", "token_start": 0}]], "answer": ["accept"]}
    ),
    "spaCy": ({"column_1": [TEXT], "column_2": [{"entities": [[0, 12, "PER"]]}]}),
    "Label Studio": (
        {
            "data": [{"text": TEXT}],
            "annotations": [
                [
                    {"was_cancelled": True, "result": []},
                    {
                        "result": [
                            {
                                "type": "labels",
                                "value": {"start": 0, "end": 12, "text": "Ada Lovelace", "labels": ["PER"]},
                            },
                            {"type": "choices", "value": {"choices": ["good"]}},
                        ]
                    },
                ]
            ],
        }
    ),
    "Label Studio, short": (
        {"text": [TEXT], "label": [[{"start": 0, "end": 12, "text": "Ada Lovelace", "labels": ["PER"]}]]}
    ),
}


@pytest.mark.parametrize("tool", SPAN_CELLS)
def test_spans_of_tools(tool):
    columns = SPAN_CELLS[tool]
    assert spans_in(columns, {})
    rows = rows_of(columns)
    assert (rows.texts, word_of(rows.labels[0])) == ((TEXT,), [(0, 12, "PER")])


def test_what_an_annotator_refused_has_no_label_and_an_empty_list_no_entity():
    rows = rows_of(
        {
            "text": ["Ada", "Bob", "Eve"],
            "spans": [[[0, 3, "PER"]], [[0, 3, "PER"]], []],
            "answer": ["accept", "reject", "accept"],
        }
    )
    assert rows.labels == ('[[0, 3, "PER"]]', "", "[]")


def test_borders_in_utf_16_are_told_by_what_the_span_says():
    text = "😀😀 Rome"
    rows = rows_of({"text": [text], "label": [[{"start": 5, "end": 9, "text": "Rome", "labels": ["LOC"]}]]})
    assert word_of(rows.labels[0]) == [(3, 7, "LOC")]


def test_texts_are_stripped_and_spans_move_along():
    rows = rows_of({"text": ["\ufeff  to Rome \n"], "label": [[[6, 11, "LOC"]]]})
    assert (rows.texts[0], word_of(rows.labels[0])) == ("to Rome", [(3, 7, "LOC")])


def test_of_spans_that_overlap_the_longest_stays():
    table = Table("x.jsonl", {"text": ("New York Times",), "label": ('[[0, 8, "LOC"], [0, 14, "ORG"], [9, 14, "X"]]',)})
    columns = choose_span_columns(table, None, None)
    assert word_of(read_span_rows(table, columns).labels[0]) == [(0, 14, "ORG")]
    assert columns.findings[-1] == "2 spans lie over a longer one and are left out: a token has one tag."


BROKEN = {
    "unlike in number": ({"tokens": [["a", "b"], ["a"]], "tags": [["O", "O"], ["O", "O"]]}, "row 2: 1 words .* 2 tags"),
    "numbers": ({"tokens": [["a", "b"]], "ner_tags": [[0, 1]]}, "row 1: the tags in 'ner_tags' are numbers"),
    "mixed": ({"tokens": [["a", "b"]], "tags": [["B-x", "y"]]}, "row 1: the tag 'y' has no prefix"),
    "no tag": ({"tokens": [["a", "b"]], "tags": [["B-x", ""]]}, "row 1: a word has no tag"),
    "beyond": ({"text": ["Rome", "Bonn"], "label": [[[0, 4, "LOC"]], [[0, 9, "LOC"]]]}, "row 2: the span 0 to 9"),
    "backwards": ({"text": ["Rome", "Bonn"], "label": [[[0, 4, "LOC"]], [[3, 1, "LOC"]]]}, "row 2: the span 3 to 1"),
    "no type": (
        {"text": ["Rome", "Bonn"], "label": [[[0, 4, "LOC"]], [[0, 4]]]},
        r"row 2: \[0, 4\] is no labelled span",
    ),
    "no spans": ({"text": ["Rome"], "label": ["LOC"]}, "holds no labelled spans"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named_by_its_row(case):
    columns, message = BROKEN[case]
    with pytest.raises(DataError, match=message) as caught:
        rows_of(columns)
    assert caught.value.expected
    assert caught.value.action


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


CONLL = (
    "-DOCSTART- -X- -X- O\n\nAda NNP B-NP B-PER\nLovelace NNP I-NP I-PER\nmet VBD B-VP O\n\n\n"
    "# a comment\nBob NNP B-NP B-PER\n\u00a0 NN O O\n# NN O O\n"
)


@pytest.mark.parametrize("name", ["eng.testa", "train.txt", "train.conll", "data"])
def test_files_of_a_word_and_its_tag_a_line(tmp_path, name):
    table = read_table(written(tmp_path / name, CONLL), FileOptions())
    rows = read_span_rows(table, choose_span_columns(table, None, None))
    assert rows.texts == ("Ada Lovelace met", "Bob \u00a0 #".strip())
    assert [word_of(word) for word in rows.labels] == [[(0, 12, "PER")], [(0, 3, "PER")]]
    assert table.findings == (f"Left out 1 -DOCSTART- line of {name}.",)


def test_lines_without_a_tag_or_a_word_are_named(tmp_path):
    with pytest.raises(DataError, match=r"x\.bio, line 4: 'Bob' has no tag"):
        read_table(written(tmp_path / "x.bio", "Ada\tB-PER\n.\tO\n\nBob\n"), FileOptions())
    with pytest.raises(DataError, match=r"x\.bio, line 2: .* has no word"):
        read_table(written(tmp_path / "x.bio", "Ada\tB-PER\n\tO\n"), FileOptions())


def test_folders_of_parts(tmp_path):
    for names in (("train.char.bmes", "dev.char.bmes"), ("train.txt", "valid.txt")):
        folder = tmp_path / names[0]
        folder.mkdir()
        for name in names:
            written(folder / name, "李 B-N\n明 E-N\n在 O\n")
        tables = read_source(str(folder), FileOptions())
        assert len(tables.train) == len(tables.validation or ()) == 1


def test_other_files_stay_what_they_were(tmp_path):
    table = read_table(written(tmp_path / "x.tsv", "text\tlabel\ngood day\tA\nbad day\tB-side\n"), FileOptions())
    assert list(table.columns) == ["text", "label"]


def test_a_data_set_of_spans(tmp_path):
    lines = [
        {"text": f"{name} is in {place} {n}", "spans": [[0, len(name), "PER"]] if n % 2 else []}
        for n, (name, place) in enumerate([("Ada", "Rome"), ("Bob", "Bonn"), ("Eve", "Oslo"), ("Dan", "Kyiv")] * 6)
    ]
    path = written(tmp_path / "x.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    task = TASKS["token-classification"]
    dataset = Dataset.load(DataRecipe(path=str(path)), task, seed=0)
    assert dataset.labels == ("O", "B-PER", "I-PER")
    assert set(dataset.train.targets) == {(), ((0, 3, 1),)}
    dataset.save(tmp_path)
    assert Dataset.open(tmp_path) == dataset
    every = [target for part in (dataset.train, dataset.validation, dataset.test) for target in part.targets]
    assert task.describe(dataset.labels, every).finding == "12 entities of 1 type: PER (12); 12 rows without any."


def test_types_that_training_lacks_are_named_by_their_row(tmp_path):
    train = written(tmp_path / "train.bio", "Ada B-PER\n\nBob B-PER\n")
    test = written(tmp_path / "test.bio", "Ada B-PER\n\nRome B-LOC\n")
    with pytest.raises(DataError, match="Row 2 of the test part has an entity of the type 'LOC'"):
        Dataset.load(DataRecipe(train=str(train), test=str(test)), TASKS["token-classification"], seed=0)


SHEETS = {
    "a word a row": (
        "Sentence #,Word,POS,Tag\nSentence: 1,Ada,NN,B-PER\n,Lovelace,NN,I-PER\n,met,VB,O\nSentence: 2,Bob,NN,B-PER\n",
        [("Ada Lovelace met", [(0, 12, "PER")]), ("Bob", [(0, 3, "PER")])],
    ),
    "tags with blanks": (
        "text,labels\nAda Lovelace met,B-PER I-PER O\nBob waits,B-PER O\n",
        [("Ada Lovelace met", [(0, 12, "PER")]), ("Bob waits", [(0, 3, "PER")])],
    ),
    "lists as Python writes them": (
        "tokens,ner_tags\n\"['Ada', 'met']\",\"['B-PER', 'O']\"\n\"['Bob']\",\"['B-PER']\"\n",
        [("Ada met", [(0, 3, "PER")]), ("Bob", [(0, 3, "PER")])],
    ),
}


@pytest.mark.parametrize("name", SHEETS)
def test_tables_of_words(tmp_path, name):
    content, expected = SHEETS[name]
    table = read_table(written(tmp_path / "x.csv", content), FileOptions())
    assert spans_in(table.columns, {})
    rows = read_span_rows(table, choose_span_columns(table, None, None))
    assert [(text, word_of(label)) for text, label in zip(rows.texts, rows.labels, strict=True)] == expected


def test_a_word_a_row_without_a_tag_is_named(tmp_path):
    content = "Sentence #,Word,Tag\n1,Ada,B-PER\n" + "1,met,O\n" * 99 + "2,Bob,\n"
    table = read_table(written(tmp_path / "x.csv", content), FileOptions())
    with pytest.raises(DataError, match=r"x\.csv, row 101: the word 'Bob' has no tag"):
        choose_span_columns(table, None, None)


def test_files_with_names_of_columns_or_plain_types(tmp_path):
    named = read_table(written(tmp_path / "x.tsv", "word\ttag\nAda\tB-PER\nmet\tO\n"), FileOptions())
    assert named.columns["tokens"] == ('["Ada", "met"]',)
    plain = read_table(written(tmp_path / "x.txt", "Ada PER\nmet O\nus O\n\nin O\nRome LOC\nnow O\n"), FileOptions())
    rows = read_span_rows(plain, choose_span_columns(plain, None, None))
    assert [word_of(word) for word in rows.labels] == [[(0, 3, "PER")], [(3, 7, "LOC")]]


def test_documents_of_annotators_for_spacy(tmp_path):
    pairs = [["Ada met", {"entities": [[0, 3, "PER"]]}], ["Bob", {"entities": [[0, 3, "PER"]]}]]
    for name, document in (("a.json", pairs), ("b.json", {"classes": ["PER"], "annotations": [*pairs, None]})):
        table = read_table(written(tmp_path / name, json.dumps(document)), FileOptions())
        rows = read_span_rows(table, choose_span_columns(table, None, None))
        assert (rows.texts, set(rows.labels)) == (("Ada met", "Bob"), {'[[0, 3, "PER"]]'})
