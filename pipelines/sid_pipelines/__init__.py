"""The stages from raw dump to published tables, in data order; each a plain function over tables.

    sources -> ingest -> clean -> split -> text -> embed -> tokenize -> collisions
            -> sequences -> gates -> publish

`stage` says what a stage is, `chain` lists them. Nothing here knows Prefect, recipes or a terminal.
"""
