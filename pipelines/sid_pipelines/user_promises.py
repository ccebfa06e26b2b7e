"""What a release promises of users' SIDs and mixtures: total over train users, spelt alike, of train alone.

promises.py has what it promises of items' SIDs, which must be unique; users may share theirs.
"""

from sid_pipelines.failing import Sought, none_in
from sid_pipelines.users import FOLDER
from sid_schemas import Check
from sid_schemas.checks import none_of
from sid_schemas.tables import USER_MIXTURES, USER_SIDS
from sid_tokenizers import Vocabulary
from sid_warehouse.stages import StageOutput

TRAIN_USERS = "(select user_index from interactions where split = 'train')"
OF_TRAIN = """
    select user_index, sid[1] as cluster, count(*) / sum(count(*)) over (partition by user_index) as weight
    from interactions join sids using (item_index) where split = 'train' group by user_index, sid[1]"""
AS_WRITTEN = "select user_index, unnest(clusters) as cluster, unnest(weights) as weight from user_mixtures"
NOT_OF_TRAIN = f"""
    select user_index, cluster, train.weight as share_of_train, written.weight as weight
    from ({OF_TRAIN}) as train full join ({AS_WRITTEN}) as written
    using (user_index, cluster) where coalesce(abs(train.weight - written.weight) > 1e-9, true)"""


def user_promises(users: StageOutput) -> list[Check]:
    """Give the checks of those of the two tables that are there. users: the stage's output, or a release."""
    checks = []
    if USER_SIDS.name in users.manifest["rows"]:
        vocabulary = Vocabulary.load(users.folder / FOLDER / "vocabulary.json")
        checks += [*_same_users(USER_SIDS.name), *_spelling(USER_SIDS.name, vocabulary), _ids(), *_groups()]
    if USER_MIXTURES.name in users.manifest["rows"]:
        checks += [*_same_users(USER_MIXTURES.name), *_mixtures()]
    return checks


def _same_users(table: str) -> list[Check]:
    """Give the checks that a table has the very users with a train event; its schema has the rest."""
    missing = f"(select count(*) from (select distinct * from {TRAIN_USERS})) - count(distinct user_index)"
    return [
        none_of(
            table,
            "without_train_event",
            f"user_index not in {TRAIN_USERS}",
            "every user here has a train event",
        ),
        Sought(
            table,
            "users_missing",
            missing,
            "every user with a train event is here",
            minimum=0,
            maximum=0,
            rows=f"""select distinct user_index from interactions where split = 'train'
                and user_index not in (select user_index from {table})""",
        ),
    ]


def _spelling(table: str, vocabulary: Vocabulary) -> list[Check]:
    """Give the checks that SIDs are in a vocabulary, and that every other spelling follows from them."""
    length, offsets, strings = (
        vocabulary.length,
        vocabulary.offsets,
        vocabulary.tokens([0] * vocabulary.length),
    )
    places = range(length)
    wrong_token = " or ".join(f"token_ids[{n + 1}] <> sid[{n + 1}] + {offsets[n]}" for n in places)
    beyond = " or ".join(f"sid[{n + 1}] < 0 or sid[{n + 1}] >= {k}" for n, k in enumerate(vocabulary.sizes))
    wrong_string = " or ".join(
        f"tokens[{n + 1}] <> '{strings[n].removesuffix('0>')}' || sid[{n + 1}] || '>'" for n in places
    )
    uneven = f"len(sid) <> {length} or len(token_ids) <> {length} or len(tokens) <> {length}"
    return [
        none_of(table, "uneven_length", uneven, f"SIDs have {length} codes"),
        none_of(table, "wrong_key", "sid_key <> array_to_string(sid, '-')", "sid_key spells out sid"),
        none_of(table, "beyond_level", beyond, "every code is one of its level's"),
        none_of(table, "wrong_tokens", wrong_token, "token_ids are sid in the users' vocabulary"),
        none_of(table, "wrong_strings", wrong_string, "tokens spell out sid"),
        none_of(table, "wrong_text", "text <> array_to_string(tokens, '')", "text is tokens joined"),
    ]


def _ids() -> Check:
    other = "(select user_id from users where users.user_index = user_sids.user_index)"
    wrong = f"user_id is distinct from {other}"
    return none_of(USER_SIDS.name, "not_the_users", wrong, "user_index and user_id as in users")


def _groups() -> list[Check]:
    """Give the check that slots count the users of a SID: distinct, and none past their number."""
    gaps = """select sid_key, count(*) as users, list(slot order by slot) as slots from user_sids
        group by sid_key having max(slot) + 1 <> count(*) or count(distinct slot) <> count(*)"""
    why = "slots count 0..n-1 among the users who share a SID"
    return [none_in(USER_SIDS.name, "slot_gaps", gaps, why)]


def _mixtures() -> list[Check]:
    table = USER_MIXTURES.name
    unknown = "not list_has_all((select list(distinct sid[1]) from sids), clusters)"
    repeated = "len(clusters) <> len(weights) or len(list_distinct(clusters)) <> len(clusters)"
    return [
        none_of(
            table, "wrong_sum", "not abs(list_sum(weights) - 1) <= 1e-9", "weights of a user add up to 1"
        ),
        none_of(table, "no_share", "not list_min(weights) > 0", "every weight is above 0"),
        none_of(table, "repeated", repeated, "a weight for each cluster, and each cluster once"),
        none_of(table, "unknown_cluster", unknown, "every cluster is the first code of an item's SID"),
        none_in(table, "not_of_train", NOT_OF_TRAIN, "weights are shares of train events"),
    ]
