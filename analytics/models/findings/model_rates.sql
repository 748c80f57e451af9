-- What the price book says of the models that calls used, and of the cheaper ones that rules compare them with. One row per provider and model.
-- @provider: Who serves and bills
-- @model: Model, as calls name it
-- @input_rate: An uncached input token, nano-USD per million of them, at list price
-- @cache_read_rate: A token read from the cache, likewise
-- @cache_write_rate: A token written to the cache, likewise
-- @output_rate: An output token, likewise
-- The keeper writes what gateway/prices says: views know no price book.
FROM read_parquet('lake:prices/rates.parquet', hive_partitioning = false)
