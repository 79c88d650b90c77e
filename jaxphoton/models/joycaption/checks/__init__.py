"""What recorded cases of a JoyCaption must show; `cases` lists them. No part of the model: they stand on the oracle."""
