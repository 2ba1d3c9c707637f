"""How every process reaches Postgres: sessions with deadlines, errors, roles, the check at the start, migrations."""
