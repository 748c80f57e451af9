-- The exported rows as Parquet, always in the same order.
COPY (FROM exported ORDER BY "ChargePeriodStart", "x_RowId") TO $file (FORMAT parquet, COMPRESSION zstd)
