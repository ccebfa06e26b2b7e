"""Merlin's own schema reader, and pandas, on `sidmill export --format merlin`.

    python benchmarks/readers/merlin.py EXPORT RELEASE

RELEASE is the folder of the release, read by pyarrow alone: merlin-core 23.8.0 wants versions of NumPy and
pandas that sidmill does not run on, so this is for an environment of its own (NumPy below 1.25, pandas below
1.6, dask 2023.3.2, pyarrow below 16). NVTabular and Transformers4Rec want a GPU and did not run.
"""

import sys

sys.path.pop(0)  # this script's folder has a module of the same name
import pandas as pd
import pyarrow.parquet as pq
from merlin.schema import Tags
from merlin.schema.io.tensorflow_metadata import TensorflowMetadata

export, release = sys.argv[1:]
schema = TensorflowMetadata.from_proto_text_file(export, "schema.pbtxt").to_merlin_schema()
frame = pd.read_parquet(f"{export}/test")
assert schema.column_names == list(frame.columns)
[items] = schema.select_by_tag(Tags.ITEM_ID).column_names
[user] = schema.select_by_tag(Tags.USER_ID).column_names
assert (items, user) == ("item_list", "user")
users = pq.read_table(f"{release}/sequences", columns=["items"])["items"].to_pylist()
assert frame["target"].tolist() == [row[-1] + 1 for row in users]
assert [list(row) for row in frame[items]] == [[item + 1 for item in row[:-1][-50:]] for row in users]
for column in schema:
    values = frame[column.name].explode() if column.is_list else frame[column.name]
    assert column.is_list == column.is_ragged == (frame[column.name].dtype == object), column.name
    assert str(values.dropna().map(type).iloc[0]).count("float") == ("float" in str(column.dtype)), (
        column.name
    )
    if Tags.CATEGORICAL in column.tags:
        assert 0 <= values.min() <= values.max() <= column.int_domain.max, column.name
    tags = sorted(tag.value for tag in column.tags)
    print(f"{column.name}: {column.dtype.name}, {tags}, {column.properties.get('domain')}")
sequence = schema.select_by_tag(Tags.SEQUENCE).column_names
print(f"TensorflowMetadata.to_merlin_schema: {len(schema)} columns as in the Parquet, histories {sequence}")
print(f"pandas.read_parquet: {len(frame)} test rows, histories and targets those of the release's sequences")
