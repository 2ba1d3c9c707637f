"""Sell by the piece in a Django project: who sends a request is charged once, after the commit.

pip install creditlane django
creditlane up                                                # in another terminal
eval "$(creditlane env --export)"; cd examples/django_app
python manage.py migrate --run-syncdb
TOKEN=$(python manage.py sign_up ada)                        # a customer with 20 credits
python manage.py runserver 8080                              # and every minute: python manage.py settle
curl localhost:8080/answers -H "Authorization: Bearer $TOKEN" -H "Idempotency-Key: 1" -d '{"question": "Why?"}'
"""

import os
import sys

from django.core.management import execute_from_command_line

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
    execute_from_command_line(sys.argv)
