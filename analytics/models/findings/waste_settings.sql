-- Thresholds of the rules of waste, as the keeper last found them set. One row per installation.
-- @looked_at: As of when was last looked for waste, UTC; NULL when nobody has
-- @settings: The settings of [waste] in config/outlay.toml, by their names
-- @versions: Version of each rule: 1, with a mark behind it where its thresholds are not the shipped ones
-- @parameters: Thresholds of each rule, as JSON
FROM read_parquet('lake:findings/settings.parquet', hive_partitioning = false)
